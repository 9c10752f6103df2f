"""What Pants loads: `backend_packages = ["pants.backend.python", "pexpress_pants"]`."""

from pants.core.util_rules import external_tool

from pexpress_pants import check, deploy, deps, location, lock, package, project, source, tool, wheels
from pexpress_pants.target_types import target_types as target_types


def rules():
    modules = (check, deploy, deps, location, lock, package, project, source, tool, wheels)
    return [*(rule for module in modules for rule in module.rules()), *external_tool.rules()]
