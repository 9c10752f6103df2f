"""When the assets are computed."""

import dagster as dg

refresh = dg.define_asset_job("refresh", selection=dg.AssetSelection.groups("shop"))
every_morning = dg.ScheduleDefinition(job=refresh, cron_schedule="0 6 * * *", execution_timezone="UTC")
