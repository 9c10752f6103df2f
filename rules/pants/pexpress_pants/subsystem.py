"""The options of the scope [pexpress]."""

from pants.core.util_rules.external_tool import TemplatedExternalTool
from pants.option.option_types import BoolOption, StrListOption, StrOption


class Pexpress(TemplatedExternalTool):
    options_scope = "pexpress"
    name = "pexpress"
    help = "Builds of deps.pex and source.pex, and deploys of them by digest."

    default_version = "local"
    default_known_versions: list = []
    default_url_template = ""

    search_path = StrListOption(
        default=["<PATH>"],
        help=(
            "Where to look for the pexpress binary, if no known_versions are given. <PATH> stands for the directories "
            "of the variable PATH."
        ),
    )
    pex_lock = StrOption(
        default=None,
        help=(
            "A pylock.toml, by its path from the build root, that has the pex wheel whose runtime goes into the PEXes. "
            "Not needed if each lock has it."
        ),
    )
    cache = StrOption(
        default=None,
        help="Address of the cache that a deploy goes by; without it $PEXPRESS_CACHE.",
    )
    codeserver = StrOption(
        default=None,
        help="Address of the codeserver to deploy to; without it $PEXPRESS_CODESERVER.",
    )
    upload = BoolOption(
        default=True,
        help=(
            "Whether a deploy brings the files that the cache lacks. Say false where the cache is Pants' own remote "
            "store, which has them from the build: a deploy then needs the digests alone."
        ),
    )
