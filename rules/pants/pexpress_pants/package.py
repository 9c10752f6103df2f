"""The goal `package`: deps.pex, source.pex and the descriptor, in dist/."""

from __future__ import annotations

from dataclasses import dataclass

from pants.core.goals.package import BuiltPackage, BuiltPackageArtifact, OutputPathField, PackageFieldSet
from pants.engine.fs import AddPrefix, MergeDigests
from pants.engine.rules import collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.deps import DepsRequest, compose_deps
from pexpress_pants.location import DESCRIPTOR, LocationRequest, make_location
from pexpress_pants.lock import SelectRequest
from pexpress_pants.subsystem import Pexpress
from pexpress_pants.target_types import (
    EnvironmentField,
    ExtrasField,
    GroupsField,
    LocationDepsField,
    LocationNameField,
    LocationSourceField,
    LockField,
    PlatformField,
    PythonField,
    RunField,
)
from pexpress_pants.tool import PexpressTool


@dataclass(frozen=True)
class DepsPackageFieldSet(PackageFieldSet):
    required_fields = (LockField, PythonField)

    lock: LockField
    python: PythonField
    platform: PlatformField
    extras: ExtrasField
    groups: GroupsField
    output_path: OutputPathField
    environment: EnvironmentField


@dataclass(frozen=True)
class LocationPackageFieldSet(PackageFieldSet):
    required_fields = (LocationDepsField, LocationSourceField)

    deps: LocationDepsField
    source: LocationSourceField
    location: LocationNameField
    run: RunField
    output_path: OutputPathField
    environment: EnvironmentField


@rule(desc="Package deps.pex", level=LogLevel.DEBUG)
async def package_deps(field_set: DepsPackageFieldSet, pexpress: Pexpress, tool: PexpressTool) -> BuiltPackage:
    deps = await compose_deps(
        DepsRequest(
            SelectRequest(
                field_set.address,
                field_set.lock,
                field_set.python.value,
                field_set.platform.value or PlatformField.default,
                field_set.extras.value or (),
                field_set.groups.value or (),
                pexpress.pex_lock,
                tool,
            )
        )
    )
    path = field_set.output_path.value_or_default(file_ending=None)
    return BuiltPackage(await engine.prefix(AddPrefix(deps.tree, path)), (BuiltPackageArtifact(f"{path}/deps.pex"),))


@rule(desc="Package a location", level=LogLevel.DEBUG)
async def package_location(field_set: LocationPackageFieldSet, pexpress: Pexpress, tool: PexpressTool) -> BuiltPackage:
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
    both = await engine.merge(MergeDigests([location.deps.tree, location.source.tree, location.descriptor]))
    path = field_set.output_path.value_or_default(file_ending=None)
    return BuiltPackage(
        await engine.prefix(AddPrefix(both, path)),
        tuple(BuiltPackageArtifact(f"{path}/{name}") for name in ("deps.pex", "source.pex", DESCRIPTOR)),
    )


def rules():
    return [
        *collect_rules(),
        UnionRule(PackageFieldSet, DepsPackageFieldSet),
        UnionRule(PackageFieldSet, LocationPackageFieldSet),
    ]
