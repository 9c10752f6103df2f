"Deployments by digest."

load(":actions.bzl", "run_pexpress")
load(":providers.bzl", "PexDescriptorInfo", "PexInfo")
load(":toolchain.bzl", "TOOLCHAIN", "pexpress_of")

def _pex_descriptor_impl(ctx):
    deps, source = ctx.attr.deps[PexInfo], ctx.attr.source[PexInfo]
    out = ctx.actions.declare_file(ctx.label.name + ".json")
    args = ctx.actions.args()
    args.add("--deps-summary=" + deps.summary.path)
    args.add("--source-summary=" + source.summary.path)
    args.add("--out=" + out.path)
    if ctx.attr.location:
        args.add("--name=" + ctx.attr.location)
    inputs = [deps.summary, source.summary]
    if ctx.file.config:
        inputs.append(ctx.file.config)
        args.add("--as-project=.")
        args.add("--file=pexpress.toml=" + ctx.file.config.path)
        if ctx.attr.config_location:
            args.add("--location=" + ctx.attr.config_location)
    run_pexpress(ctx, "describe", args, depset(inputs), [out], "PexDescribe", "Describing the deployment %s" % ctx.label)
    return [
        # The summaries alone: the trees are nothing that a deploy needs here.
        DefaultInfo(files = depset([out]), runfiles = ctx.runfiles(files = [out])),
        PexDescriptorInfo(descriptor = out, location = ctx.attr.location),
    ]

pex_descriptor = rule(
    implementation = _pex_descriptor_impl,
    attrs = {
        "config": attr.label(
            allow_single_file = [".toml"],
            doc = "A pexpress.toml that says what to run, if the source is no project whose configuration does.",
        ),
        "config_location": attr.string(doc = "The location of config to read; its only one if empty."),
        "deps": attr.label(providers = [PexInfo], mandatory = True, doc = "A pex_deps."),
        "location": attr.string(doc = "The name to deploy under; the configuration's if empty."),
        "source": attr.label(providers = [PexInfo], mandatory = True, doc = "A pex_source."),
    },
    toolchains = [TOOLCHAIN],
    doc = "The descriptor of a deployment: digests, and what to run.",
)

def _deploy_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = out, target_file = pexpress_of(ctx), is_executable = True)
    return [
        DefaultInfo(
            files = depset([out]),
            executable = out,
            runfiles = ctx.runfiles(files = ctx.files.data + [pexpress_of(ctx)]),
        ),
        ctx.attr.data[0][PexDescriptorInfo],
    ]

_deploy = rule(
    implementation = _deploy_impl,
    attrs = {"data": attr.label_list(providers = [PexDescriptorInfo])},
    executable = True,
    toolchains = [TOOLCHAIN],
)

def pexpress_deploy(name, deps, source, location = "", config = None, config_location = "", args = [], **kwargs):
    """`bazel run` of it deploys by digest; the rest of the command line is that of `pexpress deploy`.

    Build with the remote cache that the codeserver reads: a deploy ships no file.

    Args:
      name: of the target; NAME.descriptor is the pex_descriptor
      deps: a pex_deps
      source: a pex_source
      location: the name to deploy under; the configuration's if empty
      config: a pexpress.toml that says what to run, if the source is no project whose configuration does
      config_location: the location of config to read; its only one if empty
      args: arguments of `pexpress deploy`, such as ["--to=unix:///run/codeserver.sock"]
      **kwargs: attributes that all rules have: visibility, tags, testonly
    """
    descriptor = name + ".descriptor"
    pex_descriptor(
        name = descriptor,
        deps = deps,
        source = source,
        location = location,
        config = config,
        config_location = config_location,
        **kwargs
    )
    _deploy(
        name = name,
        data = [":" + descriptor],
        args = ["deploy", "--descriptor", "$(rootpath :%s)" % descriptor] + args,
        **kwargs
    )
