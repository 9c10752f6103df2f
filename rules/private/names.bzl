"Names that Bazel may not keep."

load(":setting.bzl", "SettingInfo")

_ASCII = "".join([
    "\t !\"#$%&'()*+,-./0123456789:;<=>?@",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`",
    "abcdefghijklmnopqrstuvwxyz{|}~",
])

# One character where Bazel reads files as UTF-8. Where it takes each byte for a character, as 4.2.3 does, it encodes the
# names in a directory once more when it uploads it.
_UNICODE = len("é") == 1

def ascii_only(ctx):
    """Returns whether names that are not ASCII are to be refused.

    Args:
      ctx: the context of a rule with NAMES_ATTRS

    Returns:
      a bool
    """
    value = ctx.attr._non_ascii_names[SettingInfo].value
    return value == "refuse" or value == "detect" and not _UNICODE

def check_names(ctx, names):
    """Refuses names that this Bazel is not known to keep.

    Args:
      ctx: the context of a rule with NAMES_ATTRS
      names: list of strings
    """
    if not ascii_only(ctx):
        return
    for name in names:
        if name.strip(_ASCII):
            fail(("%s: the name %s is not ASCII, and this Bazel may store it in a remote cache under another name, so that " +
                  "what is deployed is not what was built: rename it or leave it out, or, if your Bazel keeps such names, " +
                  "pass --@pexpress_rules//:non_ascii_names=allow") % (ctx.label, name))

NAMES_ATTRS = {"_non_ascii_names": attr.label(default = Label("//:non_ascii_names"), providers = [SettingInfo])}
