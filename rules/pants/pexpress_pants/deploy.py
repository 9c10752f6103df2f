"""The goal `experimental-deploy`: a codeserver is told the digests."""

from __future__ import annotations

from dataclasses import dataclass

from pants.core.goals.deploy import DeployFieldSet, DeployProcess
from pants.engine.env_vars import EnvironmentVarsRequest
from pants.engine.fs import MergeDigests
from pants.engine.process import InteractiveProcess
from pants.engine.rules import collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.location import DESCRIPTOR, LocationRequest, make_location
from pexpress_pants.subsystem import Pexpress
from pexpress_pants.target_types import (
    EnvironmentField,
    LocationDepsField,
    LocationNameField,
    LocationSourceField,
    RunField,
)
from pexpress_pants.tool import PexpressTool

# A deploy is the user's own act: these of their variables say where to, and as whom.
VARIABLES = (
    "HOME", "XDG_CACHE_HOME", "PEXPRESS_HOME", "PEXPRESS_CACHE", "PEXPRESS_CACHE_TOKEN", "PEXPRESS_CACHE_CERT",
    "PEXPRESS_CACHE_KEY", "PEXPRESS_CACHE_CA", "PEXPRESS_CODESERVER", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY",
    "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True)
class LocationDeployFieldSet(DeployFieldSet):
    required_fields = (LocationDepsField, LocationSourceField)

    deps: LocationDepsField
    source: LocationSourceField
    location: LocationNameField
    run: RunField
    environment: EnvironmentField


@rule(desc="Deploy a location", level=LogLevel.DEBUG)
async def deploy_location(field_set: LocationDeployFieldSet, pexpress: Pexpress, tool: PexpressTool) -> DeployProcess:
    location = await make_location(
        LocationRequest(
            field_set.address,
            field_set.deps.value,
            field_set.source.value,
            field_set.location.value or field_set.address.target_name,
            field_set.run.value,
            pexpress.pex_lock,
            tool,
        )
    )
    variables = dict(await engine.environment(EnvironmentVarsRequest(VARIABLES)))
    if pexpress.cache:
        variables["PEXPRESS_CACHE"] = pexpress.cache
    if pexpress.codeserver:
        variables["PEXPRESS_CODESERVER"] = pexpress.codeserver
    digests = [location.descriptor]
    args = [f"{{chroot}}/{tool.exe}", "deploy", "--descriptor", DESCRIPTOR]
    if pexpress.upload:
        digests += [location.deps.tree, location.source.tree]
        args += ["--from", "deps.pex,source.pex"]
    process = InteractiveProcess(
        args,
        env=variables,
        input_digest=await engine.merge(MergeDigests(digests)),
        immutable_input_digests=tool.immutable_input_digests,
    )
    return DeployProcess(name=field_set.address.spec, description=f"location {location.name}", process=process)


def rules():
    return [*collect_rules(), UnionRule(DeployFieldSet, LocationDeployFieldSet)]
