"What PEXes are built for, as lock repositories declare it."

load(":actions.bzl", "run_pexpress")
load(":providers.bzl", "PexTargetInfo", "PexWheelsInfo")
load(":setting.bzl", "TARGET")
load(":toolchain.bzl", "TOOLCHAIN")

def _pex_bootstrap_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    args = ctx.actions.args()
    args.add("--wheel=" + ctx.file.wheel.path)
    args.add("--out=" + out.path)
    run_pexpress(ctx, "bootstrap", args, depset([ctx.file.wheel]), [out], "PexBootstrap", "Unpacking pex's runtime %s" % ctx.label)
    return [DefaultInfo(files = depset([out]))]

pex_bootstrap = rule(
    implementation = _pex_bootstrap_impl,
    attrs = {
        "wheel": attr.label(
            allow_single_file = [".whl"],
            mandatory = True,
            doc = "The pex wheel that this pexpress is made for: `pexpress lock select` names it.",
        ),
    },
    toolchains = [TOOLCHAIN],
    doc = "pex's runtime, which every PEX carries.",
)

# The runtime is the same for every target: unpacked once, whatever a build builds for.
def _no_target_impl(_settings, _attr):
    return {TARGET: ""}

_no_target = transition(
    implementation = _no_target_impl,
    inputs = [],
    outputs = [TARGET],
)

def _pex_target_impl(ctx):
    return [PexTargetInfo(
        python = ctx.attr.python,
        platform = ctx.attr.platform,
        bootstrap = ctx.files.bootstrap[0],
    )]

pex_target = rule(
    implementation = _pex_target_impl,
    attrs = {
        "bootstrap": attr.label(cfg = _no_target, mandatory = True, doc = "A pex_bootstrap."),
        "platform": attr.string(mandatory = True, doc = "Platform tag, such as manylinux_2_28_x86_64."),
        "python": attr.string(mandatory = True, doc = "Python version, such as 3.11."),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
    doc = "A Python on a platform.",
)

def _pex_wheels_impl(ctx):
    wheels = depset(ctx.files.wheels)
    return [PexWheelsInfo(wheels = wheels), ctx.attr.target[PexTargetInfo], DefaultInfo(files = wheels)]

pex_wheels = rule(
    implementation = _pex_wheels_impl,
    attrs = {
        "target": attr.label(providers = [PexTargetInfo], mandatory = True, doc = "A pex_target."),
        "wheels": attr.label_list(allow_files = [".whl"], doc = "Wheels by the names that they were published under."),
    },
    doc = "The wheels that a target needs, all of a lock or some.",
)
