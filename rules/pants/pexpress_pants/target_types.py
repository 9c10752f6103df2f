"""The targets pexpress_deps, pexpress_source and pexpress_location."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    Dependencies,
    Field,
    InvalidFieldException,
    SingleSourceField,
    StringField,
    StringSequenceField,
    Target,
)

try:
    from pants.core.environments.target_types import EnvironmentField as EnvironmentField
except ImportError:  # where it was up to Pants 2.26
    from pants.core.util_rules.environments import EnvironmentField as EnvironmentField


class LockField(SingleSourceField):
    alias = "lock"
    default = "pylock.toml"
    required = False
    expected_file_extensions = (".toml",)
    help = "The lock, a pylock.toml (PEP 751) such as `pexpress lock` writes. Default: pylock.toml."

    def validate_resolved_files(self, files: Sequence[str]) -> None:
        if not files:
            raise InvalidFieldException(
                f"{self.address} has no lock {self.file_path}: run pexpress lock, and see that neither .gitignore nor "
                "pants_ignore hides it"
            )
        super().validate_resolved_files(files)


class PythonField(StringField):
    alias = "python"
    required = True
    value: str
    help = 'The Python version to build for, such as "3.11", or "3.11.7" where a marker depends on the patch release.'


class PlatformField(StringField):
    alias = "platform"
    default = "manylinux_2_28_x86_64"
    value: str
    help = "The platform tag to build for: manylinux_X_Y_ARCH, musllinux_X_Y_ARCH or macosx_X_Y_ARCH."


class ExtrasField(StringSequenceField):
    alias = "extras"
    help = "The lock's extras that are part of the environment."


class GroupsField(StringSequenceField):
    alias = "groups"
    help = "The lock's dependency groups that are part of the environment."


class PexpressDeps(Target):
    alias = "pexpress_deps"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        LockField,
        PythonField,
        PlatformField,
        ExtrasField,
        GroupsField,
        OutputPathField,
        EnvironmentField,
    )
    help = "deps.pex: the wheels that a lock has for one target."


class SourceDependenciesField(Dependencies):
    help = (
        "What the location is made of: the targets of its own code. What those import, and the resources and files "
        "that they depend on, Pants finds."
    )


class ProjectField(StringField):
    alias = "project"
    help = (
        "The directory, from that of the BUILD file, of a project that pexpress knows: one with a pyproject.toml, "
        'pexpress.toml or dagster_cloud.yaml; "." for the BUILD file\'s own. source.pex is then what `pexpress build` '
        "makes of that project. Without it source.pex holds the files of the targets and of nothing else."
    )


class PexpressSource(Target):
    alias = "pexpress_source"
    core_fields = (*COMMON_TARGET_FIELDS, SourceDependenciesField, ProjectField)
    help = (
        "source.pex: the sources of a location. It is built for the target of the deps that the location has beside it."
    )


class LocationDepsField(StringField):
    alias = "deps"
    required = True
    value: str
    help = "The address of a pexpress_deps."


class LocationSourceField(StringField):
    alias = "source"
    required = True
    value: str
    help = "The address of a pexpress_source."


class LocationNameField(StringField):
    alias = "location"
    help = "The location's name on the codeserver. Default: the target's name."


class RunField(Field):
    """Kept as JSON: a value that can be hashed, and that says its types."""

    alias = "run"
    default = None
    value: Optional[str]
    help = (
        "What to run, as a dictionary with the keys that a location has in pexpress.toml: preset, app, module, args, "
        "env, readiness, listen and so on. For sources that are no project; a project's own configuration says it."
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[Mapping[str, Any]], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is None:
            return None
        if not isinstance(value, Mapping) or not value:
            raise InvalidFieldException(
                f"the field run of {address} must be a dictionary, such as "
                '{"preset": "asgi", "app": "pkg.module:app"}'
            )
        try:
            return json.dumps(value, default=dict)
        except TypeError as e:
            raise InvalidFieldException(
                f"the field run of {address} holds more than strings, numbers, booleans, lists and dictionaries: {e}"
            ) from e


class PexpressLocation(Target):
    alias = "pexpress_location"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        LocationDepsField,
        LocationSourceField,
        LocationNameField,
        RunField,
        OutputPathField,
        EnvironmentField,
    )
    help = "A service: deps.pex, source.pex and the descriptor that deploys them by digest."


def target_types():
    return [PexpressDeps, PexpressSource, PexpressLocation]
