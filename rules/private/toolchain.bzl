"Toolchains: the pexpress binary, and the Pythons that zipapps and tests are run with."

load(":providers.bzl", "PexInterpretersInfo", "PexpressInfo")

TOOLCHAIN = str(Label("//:toolchain_type"))
INTERPRETERS = str(Label("//:interpreters_toolchain_type"))

def _pexpress_toolchain_impl(ctx):
    return [
        platform_common.ToolchainInfo(pexpress = PexpressInfo(binary = ctx.executable.binary)),
        DefaultInfo(files = depset([ctx.executable.binary])),
    ]

pexpress_toolchain = rule(
    implementation = _pexpress_toolchain_impl,
    attrs = {
        "binary": attr.label(
            allow_single_file = True,
            executable = True,
            cfg = "exec",
            mandatory = True,
            doc = "The pexpress binary for the machine that runs the actions.",
        ),
    },
    doc = "A pexpress binary; declare it with `toolchain(toolchain_type = \"@pexpress_rules//:toolchain_type\")`.",
)

def _pexpress_interpreters_impl(ctx):
    for version, path in ctx.attr.paths.items():
        if not path.startswith("/"):
            fail("the interpreter for Python %s is an absolute path, not %r" % (version, path))
    return [platform_common.ToolchainInfo(interpreters = PexInterpretersInfo(paths = ctx.attr.paths))]

pexpress_interpreters = rule(
    implementation = _pexpress_interpreters_impl,
    attrs = {
        "paths": attr.string_dict(doc = "Absolute paths of interpreters by version: {\"3.11\": \"/usr/bin/python3.11\"}."),
    },
    doc = "Pythons to run with; declare them with `toolchain(toolchain_type = \"@pexpress_rules//:interpreters_toolchain_type\")`.",
)

def pexpress_of(ctx):
    """Returns the pexpress binary of a rule's toolchain.

    Args:
      ctx: the rule's context

    Returns:
      a File
    """
    return ctx.toolchains[TOOLCHAIN].pexpress.binary
