"""The pexpress binary, as an input of processes."""

from __future__ import annotations

from dataclasses import dataclass

from pants.core.util_rules.external_tool import DownloadedExternalTool
from pants.core.util_rules.system_binaries import BinaryPathRequest
from pants.engine.env_vars import EnvironmentVarsRequest
from pants.engine.fs import CreateDigest, Digest, FileEntry
from pants.engine.platform import Platform
from pants.engine.process import Process, ProcessCacheScope
from pants.engine.rules import collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.errors import PexpressError
from pexpress_pants.subsystem import Pexpress

# Pants runs a process while it asks the remote cache for its result. Ours copy whole wheels and the cache answers in
# milliseconds: it is given this much time to do so.
CACHE_FIRST_MILLIS = 10_000

_DIRECTORY = "__pexpress"


@dataclass(frozen=True)
class PexpressTool:
    """The binary by its content: where it lies on this machine is no part of what is cached."""

    digest: Digest

    @property
    def exe(self) -> str:
        return f"{_DIRECTORY}/pexpress"

    @property
    def immutable_input_digests(self) -> FrozenDict[str, Digest]:
        return FrozenDict({_DIRECTORY: self.digest})

    def process(
        self,
        args: tuple[str, ...],
        *,
        description: str,
        inputs: Digest,
        files: tuple[str, ...] = (),
        directories: tuple[str, ...] = (),
    ) -> Process:
        return Process(
            (self.exe, *args),
            description=description,
            input_digest=inputs,
            immutable_input_digests=self.immutable_input_digests,
            output_files=files,
            output_directories=directories,
            remote_cache_speculation_delay_millis=CACHE_FIRST_MILLIS,
            level=LogLevel.DEBUG,
        )


# Helpers stand above the rules that call them: Pants 2.17 looks them up when it sees the rule.
async def _named(tool: DownloadedExternalTool) -> Digest:
    """Give the binary the same name whatever it is called where it was downloaded."""
    for entry in await engine.digest_entries(tool.digest):
        if isinstance(entry, FileEntry) and f"./{entry.path}" == tool.exe:
            return await engine.create(CreateDigest([FileEntry("pexpress", entry.file_digest, True)]))
    raise PexpressError(f"the download of pexpress has no file {tool.exe}: check [pexpress].url_template")


@rule(desc="Find pexpress", level=LogLevel.DEBUG)
async def find_tool(pexpress: Pexpress, platform: Platform) -> PexpressTool:
    if pexpress.known_versions:
        downloaded = await engine.external_tool(pexpress.get_request(platform))
        return PexpressTool(await _named(downloaded))
    variables = await engine.environment(EnvironmentVarsRequest(["PATH"]))
    search = []
    for entry in pexpress.search_path:
        search.extend(variables.get("PATH", "").split(":") if entry == "<PATH>" else [entry])
    request = BinaryPathRequest(binary_name="pexpress", search_path=search)
    found = await engine.binary_paths(request)
    if not found.paths:
        raise PexpressError(
            f"no pexpress in {':'.join(search)}: install it, or set [pexpress].search_path, or [pexpress].version, "
            "known_versions and url_template"
        )
    # Captured once a run, so that the processes have its bytes as an input, as they have of one that is downloaded.
    captured = await engine.run(
        Process(
            ("/bin/cp", found.paths[0].path, "pexpress"),
            description=f"Take in {found.paths[0].path}",
            output_files=("pexpress",),
            cache_scope=ProcessCacheScope.PER_SESSION,
            level=LogLevel.DEBUG,
        )
    )
    return PexpressTool(captured.output_digest)


def rules():
    return collect_rules()
