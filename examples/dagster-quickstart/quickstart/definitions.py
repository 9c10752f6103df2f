"""What the code location offers; dagster_cloud.yaml names this module."""

import dagster as dg

from quickstart import assets, jobs

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([assets]),
    asset_checks=dg.load_asset_checks_from_modules([assets]),
    jobs=[jobs.refresh],
    schedules=[jobs.every_morning],
)
