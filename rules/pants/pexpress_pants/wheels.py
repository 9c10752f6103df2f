"""Wheels, brought by Pants: downloaded and checked against the lock, or taken out of the repository."""

from __future__ import annotations

import os.path
from dataclasses import dataclass

from pants.engine.fs import (
    CreateDigest,
    Digest,
    DownloadFile,
    FileDigest,
    FileEntry,
    GlobMatchErrorBehavior,
    PathGlobs,
)
from pants.engine.rules import collect_rules, rule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.errors import PexpressError
from pexpress_pants.lock import Wheel


@dataclass(frozen=True)
class WheelsRequest:
    wheels: tuple[Wheel, ...]
    directory: str


@dataclass(frozen=True)
class Wheels:
    """Files in request.directory, by the names that the wheels were published under."""

    digest: Digest


@rule(desc="Fetch wheels", level=LogLevel.DEBUG)
async def fetch_wheels(request: WheelsRequest) -> Wheels:
    urls = [wheel for wheel in request.wheels if wheel.is_url]
    paths = [wheel for wheel in request.wheels if not wheel.is_url]
    digests = await engine.download_all([download_of(wheel) for wheel in urls])
    files = []
    for wheel, digest in zip(urls, digests):
        files += [
            FileEntry(os.path.join(request.directory, wheel.filename), entry.file_digest)
            for entry in await engine.digest_entries(digest)
            if isinstance(entry, FileEntry)
        ]
    if paths:
        captured = await engine.glob(
            PathGlobs(
                [wheel.where for wheel in paths],
                GlobMatchErrorBehavior.error,
                description_of_origin="a wheel's path in a lock",
            )
        )
        by_path = {e.path: e for e in await engine.digest_entries(captured.digest) if isinstance(e, FileEntry)}
        files += [taken(request.directory, wheel, by_path) for wheel in paths]
    return Wheels(await engine.create(CreateDigest(files)))


def download_of(wheel: Wheel) -> DownloadFile:
    if not wheel.where:
        raise PexpressError(f"the lock does not say where {wheel.filename} is: lock again")
    if not wheel.size:
        raise PexpressError(
            f"the lock does not say the size of {wheel.filename}, which Pants' downloads need: lock with `pexpress "
            "lock`, from an index that tells sizes"
        )
    return DownloadFile(wheel.where, FileDigest(wheel.sha256, wheel.size))


def taken(directory: str, wheel: Wheel, by_path: dict[str, FileEntry]) -> FileEntry:
    entry = by_path.get(wheel.where)
    if entry is None:
        raise PexpressError(f"no {wheel.where}, which the lock names: pants_ignore or .gitignore may hide it")
    if entry.file_digest.fingerprint != wheel.sha256:
        raise PexpressError(
            f"{wheel.where} has the sha256 {entry.file_digest.fingerprint}, the lock says {wheel.sha256}: lock again"
        )
    return FileEntry(os.path.join(directory, wheel.filename), entry.file_digest)


def rules():
    return collect_rules()
