"""A repository in a temporary directory, with the real rules, the real binary and wheels that are made here."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pants.backend.python import target_types_rules
from pants.backend.python.dependency_inference import rules as dependency_inference
from pants.backend.python.target_types import (
    PythonRequirementTarget,
    PythonSourcesGeneratorTarget,
    PythonSourceTarget,
)
from pants.backend.python.util_rules import python_sources
from pants.core.goals.check import CheckResults
from pants.core.goals.deploy import DeployProcess
from pants.core.goals.package import BuiltPackage
from pants.core.target_types import ResourcesGeneratorTarget, ResourceTarget
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.process import InteractiveProcess
from pants.engine.rules import QueryRule
from pants.testutil.rule_runner import RuleRunner

from pexpress_pants import register
from pexpress_pants.check import LocationCheckFieldSet, LocationCheckRequest
from pexpress_pants.deploy import LocationDeployFieldSet
from pexpress_pants.package import DepsPackageFieldSet, LocationPackageFieldSet
from pexpress_pants.tool import PexpressTool

BINARY = Path(os.environ["PEXPRESS_BINARY"])
PEX_WHEEL = Path(os.environ["PEXPRESS_PEX_WHEEL"])


def wheel(name: str, version: str) -> tuple[str, bytes]:
    """Return a wheel's file name and content: one module that says its version."""
    info = f"{name}-{version}.dist-info"
    members = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
    return f"{name}-{version}-py3-none-any.whl", buffer.getvalue()


def locked(name: str, version: str, marker: str = "") -> str:
    """Return a package of a lock, whose wheel lies in wheels/ at the build root."""
    filename, content = wheel(name, version)
    condition = f'marker = "{marker}"\n' if marker else ""
    return (
        f'[[packages]]\nname = "{name}"\nversion = "{version}"\n{condition}'
        f'wheels = [{{ name = "{filename}", path = "../wheels/{filename}", size = {len(content)}, '
        f'hashes = {{ sha256 = "{hashlib.sha256(content).hexdigest()}" }} }}]\n'
    )


def lock(*packages: str) -> str:
    return 'lock-version = "1.0"\ncreated-by = "test"\n' + "".join(packages)


def pex_lock() -> str:
    content = PEX_WHEEL.read_bytes()
    return lock(
        f'[[packages]]\nname = "pex"\nversion = "{PEX_WHEEL.name.split("-")[1]}"\n'
        f'wheels = [{{ name = "{PEX_WHEEL.name}", url = "file://{PEX_WHEEL}", size = {len(content)}, '
        f'hashes = {{ sha256 = "{hashlib.sha256(content).hexdigest()}" }} }}]\n'
    )


FILES = {
    "pex/pylock.toml": pex_lock(),
    "svc/pylock.toml": lock(locked("alpha", "1.0"), locked("beta", "2.0")),
    **{f"wheels/{name}": content for name, content in (wheel("alpha", "1.0"), wheel("beta", "2.0"))},
    "lib/src/common/__init__.py": "",
    "lib/src/common/words.py": "word = 'hello'\n",
    "lib/src/common/unused.py": "unused = True\n",
    "lib/src/common/BUILD": "python_sources()\n",
    "svc/app/__init__.py": "",
    "svc/app/main.py": "import alpha\nfrom common.words import word\nprint(word)\n",
    "svc/app/BUILD": "python_sources()\n",
    "svc/BUILD": """
pexpress_deps(name="deps", python="3.11")
pexpress_source(name="source", dependencies=["svc/app"])
pexpress_location(
    name="web", deps=":deps", source=":source", run={"preset": "module", "module": "app.main", "env": {"A": "1"}}
)
""",
}


class Repository:
    """A RuleRunner with words for what the tests ask of it."""

    def __init__(self) -> None:
        self.runner = RuleRunner(
            rules=[
                *dependency_inference.rules(),
                *target_types_rules.rules(),
                *python_sources.rules(),
                *register.rules(),
                QueryRule(BuiltPackage, [LocationPackageFieldSet]),
                QueryRule(BuiltPackage, [DepsPackageFieldSet]),
                QueryRule(CheckResults, [LocationCheckRequest]),
                QueryRule(DeployProcess, [LocationDeployFieldSet]),
                QueryRule(PexpressTool, []),
            ],
            target_types=[
                PythonRequirementTarget,
                PythonSourceTarget,
                PythonSourcesGeneratorTarget,
                ResourceTarget,
                ResourcesGeneratorTarget,
                *register.target_types(),
            ],
        )
        self.runner.write_files(FILES)
        self.options()

    def options(self, **more: str) -> None:
        """Set options, by their flags' names; those of the tests otherwise."""
        flags = {
            "pexpress_search_path": f"['{BINARY.parent}']",
            "pexpress_pex_lock": "pex/pylock.toml",
            "source_root_patterns": "['/svc', '/lib/src']",
            "python_infer_use_rust_parser": "true",
            **more,
        }
        self.runner.set_options(
            [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()],
            env_inherit={"PATH", "HOME", "PYENV_ROOT"},
        )

    def write(self, files: dict[str, str | bytes]) -> None:
        self.runner.write_files(files)

    def target(self, name: str):
        directory, _, target = name.partition(":")
        return self.runner.get_target(Address(directory, target_name=target))

    def package(self, name: str) -> dict[str, tuple[bytes, bool]]:
        """Package a target; returns each file's content and whether it is executable."""
        target = self.target(name)
        kind = LocationPackageFieldSet if target.alias == "pexpress_location" else DepsPackageFieldSet
        built = self.runner.request(BuiltPackage, [kind.create(target)])
        contents = self.runner.request(DigestContents, [built.digest])
        return {entry.path: (entry.content, entry.is_executable) for entry in contents}

    def check(self, *names: str) -> CheckResults:
        field_sets = [LocationCheckFieldSet.create(self.target(name)) for name in names]
        return self.runner.request(CheckResults, [LocationCheckRequest(field_sets)])

    def deploy(self, name: str) -> InteractiveProcess:
        process = self.runner.request(DeployProcess, [LocationDeployFieldSet.create(self.target(name))])
        assert process.process is not None
        return process.process


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The binary in another directory, under another name's path."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    shutil.copy2(BINARY, directory / "pexpress")
    return directory
