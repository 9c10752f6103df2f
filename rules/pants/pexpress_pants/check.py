"""The goal `check`: a location reaches each project in one version, and under a name of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.target_types import PythonRequirementsField
from pants.core.goals.check import CheckRequest, CheckResult, CheckResults
from pants.engine.rules import collect_rules, rule
from pants.engine.target import FieldSet, Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.location import target_of
from pexpress_pants.lock import Selection, SelectRequest, select_wheels
from pexpress_pants.subsystem import Pexpress
from pexpress_pants.target_types import EnvironmentField, LocationDepsField, LocationNameField, LocationSourceField
from pexpress_pants.tool import PexpressTool


@dataclass(frozen=True)
class LocationCheckFieldSet(FieldSet):
    required_fields = (LocationDepsField, LocationSourceField)

    deps: LocationDepsField
    source: LocationSourceField
    location: LocationNameField
    environment: EnvironmentField


class LocationCheckRequest(CheckRequest):
    field_set_type = LocationCheckFieldSet
    tool_name = "pexpress"


@rule(desc="Check locations for conflicting distributions", level=LogLevel.DEBUG)
async def check_locations(request: LocationCheckRequest, pexpress: Pexpress, tool: PexpressTool) -> CheckResults:
    named = defaultdict(list)
    for field_set in request.field_sets:
        named[field_set.location.value or field_set.address.target_name].append(field_set.address.spec)
    results = []
    for field_set in request.field_sets:
        deps = await target_of(field_set.address, "deps", field_set.deps.value)
        source = await target_of(field_set.address, "source", field_set.source.value)
        select = SelectRequest.of(deps, pexpress.pex_lock, tool)
        selection = await select_wheels(select)
        closure = await engine.closure(source.address)
        problems = conflicts(select, selection, closure.closure)
        name = field_set.location.value or field_set.address.target_name
        others = [spec for spec in named[name] if spec != field_set.address.spec]
        if others:
            problems.append(f"the location {name} is that of {', '.join(others)}, too: give it another name")
        results.append(
            CheckResult(
                1 if problems else 0,
                "",
                "".join(f"{field_set.address}: {problem}\n" for problem in problems),
                partition_description=field_set.address.spec,
            )
        )
    return CheckResults(results, checker_name=request.tool_name)


def conflicts(select: SelectRequest, selection: Selection, closure: Iterable[Target]) -> list[str]:
    """Compare what a lock has with what the targets that a location imports require."""
    # Not above: the packaging of Pants 2.17 fills each run's output with warnings when it is imported.
    from packaging.requirements import Requirement

    if selection.failure is not None:
        return [selection.failure]
    locked = {wheel.name: wheel.version for wheel in selection.wheels}
    marker_environment = environment_of(select.python, select.platform)
    problems = []
    for target in closure:
        if not target.has_field(PythonRequirementsField):
            continue
        for written in target[PythonRequirementsField].value:
            requirement = Requirement(str(written))
            if requirement.marker and not requirement.marker.evaluate(marker_environment):
                continue
            version = locked.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
            if version is None:
                problems.append(f"{target.address} requires {requirement}, which the lock of {select.address} lacks")
            elif not requirement.specifier.contains(version, prereleases=True):
                problems.append(
                    f"{target.address} requires {requirement}, the lock of {select.address} has {version}: "
                    "lock again, or require what it has"
                )
    return sorted(set(problems))


def environment_of(python: str, platform: str) -> dict[str, str]:
    """Return the variables of markers (PEP 508) for a target."""
    major_minor = ".".join(python.split(".")[:2])
    system = {"macosx": ("darwin", "Darwin", "posix"), "win": ("win32", "Windows", "nt")}.get(
        platform.split("_")[0], ("linux", "Linux", "posix")
    )
    return {
        "python_version": major_minor,
        "python_full_version": python if python != major_minor else f"{major_minor}.0",
        "sys_platform": system[0],
        "platform_system": system[1],
        "os_name": system[2],
        "platform_machine": re.sub(r"^.*?(x86_64|aarch64|arm64|i686|amd64|armv7l|ppc64le|s390x)$", r"\1", platform),
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def rules():
    return [*collect_rules(), UnionRule(CheckRequest, LocationCheckRequest)]
