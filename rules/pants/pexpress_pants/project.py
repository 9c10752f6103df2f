"""A project as pexpress reads it: its directory, and those of the local projects that its code needs."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pants.engine.addresses import Address
from pants.engine.fs import (
    Digest,
    MergeDigests,
    PathGlobs,
    Snapshot,
)
from pants.engine.rules import collect_rules, rule
from pants.util.logging import LogLevel
from pants.util.strutil import bullet_list

from pexpress_pants import engine
from pexpress_pants.errors import PexpressError

# What makes a directory a Python project.
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True)
class StageRequest:
    directory: str
    code: Snapshot  # all that the location imports, by Pants' inference


@dataclass(frozen=True)
class StagedProject:
    digest: Digest
    owners: tuple[str, ...]  # directories of the projects that are there, the first is the location's


@rule(desc="Stage a project", level=LogLevel.DEBUG)
async def stage_project(request: StageRequest) -> StagedProject:
    above = ancestors([request.directory, *(os.path.dirname(name) for name in request.code.files)])
    described = await engine.glob(PathGlobs([os.path.join(d, name) for d in above for name in _PROJECT_FILES]))
    projects = {os.path.dirname(name) for name in described.files} | {request.directory}
    # The build root may be a workspace; it is no project to take whole because a file of no project lies in it.
    owners = {request.directory} | {owner(name, projects) for name in request.code.files} - {"", None}
    outer = ancestors(owners)
    contents = await engine.glob(
        PathGlobs(
            [os.path.join(directory, "**") for directory in sorted(owners)]
            + [os.path.join(d, name) for d in outer for name in (*_PROJECT_FILES, ".gitignore")],
        )
    )
    if not any(is_below(name, request.directory) for name in contents.files):
        raise PexpressError(f"no files in {request.directory}, which is given as a project: check pants_ignore")
    digest = await engine.merge(MergeDigests([contents.digest, request.code.digest]))
    return StagedProject(digest, (request.directory, *sorted(owners - {request.directory})))


def ancestors(directories: Iterable[str]) -> list[str]:
    """Return the directories and all above them, down from the build root, which is ""."""
    found = {""}
    for directory in directories:
        while directory:
            found.add(directory)
            directory = os.path.dirname(directory)
    return sorted(found)


def is_below(name: str, directory: str) -> bool:
    return not directory or name.startswith(f"{directory}/")


def owner(name: str, projects: Iterable[str]) -> str | None:
    """Return the innermost project that a file lies in."""
    return max((p for p in projects if is_below(name, p)), key=len, default=None)


def check_complete(
    address: Address, directory: str, staged: StagedProject, code: Sequence[str], made: Sequence[str]
) -> None:
    """Refuse a source.pex that lacks what the location imports: it would fail when it runs.

    pexpress puts local projects where it likes; a file keeps its path in its own project.
    """
    tree = set(made)
    suffixes = {name[start:] for name in made for start in starts(name)}
    lost = []
    for name in code:
        home = owner(name, staged.owners)
        if home is None and os.path.basename(name) == "__init__.py":
            continue  # Pants brings those of all directories above
        within = os.path.relpath(name, home) if home else name
        # The location's own directory may lie within its project.
        own = home == directory and any(within[start:] in tree for start in starts(within))
        if within not in suffixes and not own:
            lost.append(name)
    if lost:
        raise PexpressError(
            f"{address} imports files that its project in {directory or '.'} does not bring into source.pex:\n"
            f"{bullet_list(lost, 10)}\n"
            "Make what they belong to a dependency of the project (a workspace member or a `path =` source), stop "
            "leaving them out (exclude, .gitignore), or drop the field `project` to take exactly the files that "
            "Pants finds."
        )


def starts(name: str) -> list[int]:
    """Return where each part of a path begins."""
    return [0] + [i + 1 for i, c in enumerate(name) if c == "/"]


def rules():
    return collect_rules()
