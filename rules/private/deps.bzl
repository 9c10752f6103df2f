"deps.pex: the wheels."

load(":actions.bzl", "run_pexpress", "target_args")
load(":providers.bzl", "PexInfo", "PexTargetInfo", "PexWheelsInfo")
load(":toolchain.bzl", "TOOLCHAIN")

def _pex_deps_impl(ctx):
    target = ctx.attr.wheels[PexTargetInfo]
    wheels = ctx.attr.wheels[PexWheelsInfo].wheels
    inputs = depset([target.bootstrap], transitive = [wheels])
    tree = ctx.actions.declare_directory(ctx.label.name + ".pex")
    args = target_args(ctx, target)
    args.add_all(wheels, format_each = "--wheel=%s")
    args.add("--out=" + tree.path)
    run_pexpress(ctx, "deps", args, inputs, [tree], "PexDeps", "Composing deps.pex %s" % ctx.label)

    blobs = ctx.actions.declare_directory(ctx.label.name + ".blobs")
    summary = ctx.actions.declare_file(ctx.label.name + ".summary.json")
    args = target_args(ctx, target)
    args.add_all(wheels, format_each = "--wheel=%s")
    args.add("--blobs=" + blobs.path)
    args.add("--summary=" + summary.path)
    run_pexpress(ctx, "deps", args, inputs, [blobs, summary], "PexDepsSummary", "Summarizing deps.pex %s" % ctx.label)
    return [
        DefaultInfo(files = depset([tree])),
        OutputGroupInfo(summary = depset([summary])),
        PexInfo(
            kind = "deps",
            python = target.python,
            platform = target.platform,
            tree = tree,
            blobs = blobs,
            summary = summary,
        ),
    ]

pex_deps = rule(
    implementation = _pex_deps_impl,
    attrs = {
        "wheels": attr.label(
            providers = [PexWheelsInfo, PexTargetInfo],
            mandatory = True,
            doc = "The wheels and what they are for: `@LOCK//:wheels` of a lock repository.",
        ),
    },
    toolchains = [TOOLCHAIN],
    doc = "deps.pex of a lock's wheels, with the digest that `pexpress build` gives it.",
)
