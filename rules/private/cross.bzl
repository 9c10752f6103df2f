"Several targets in one build."

load(":providers.bzl", "PexInfo")
load(":setting.bzl", "TARGET")

def _one_impl(_settings, attr):
    return {TARGET: attr.target}

_one = transition(
    implementation = _one_impl,
    inputs = [],
    outputs = [TARGET],
)

def _all_impl(_settings, attr):
    return {t: {TARGET: t} for t in attr.targets}

_all = transition(
    implementation = _all_impl,
    inputs = [],
    outputs = [TARGET],
)

_ALLOWLIST = attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist")

def _pex_for_target_impl(ctx):
    pex = ctx.attr.pex[0]
    return [DefaultInfo(files = pex[DefaultInfo].files), pex[PexInfo]]

pex_for_target = rule(
    implementation = _pex_for_target_impl,
    attrs = {
        "pex": attr.label(cfg = _one, providers = [PexInfo], mandatory = True, doc = "A pex_deps or pex_source."),
        "target": attr.string(mandatory = True, doc = "PYTHON:PLATFORM, one of the lock repository's targets."),
        "_allowlist_function_transition": _ALLOWLIST,
    },
    doc = "A pex_deps or pex_source for one target, whatever --@pexpress_rules//:target says.",
)

def _pex_for_targets_impl(ctx):
    trees, index = [], {}
    for target, pex in ctx.split_attr.pex.items():
        info = pex[PexInfo]
        if "%s:%s" % (info.python, info.platform) != target:
            fail("%s: %s is built for %s:%s and not for %s: is that a target of its lock repository?" %
                 (ctx.label, pex.label, info.python, info.platform, target))
        trees.append(info.tree)
        index[target] = info.tree.path
    out = ctx.actions.declare_file(ctx.label.name + ".json")
    ctx.actions.write(out, json.encode(index) + "\n")
    return [DefaultInfo(files = depset(trees + [out])), OutputGroupInfo(index = depset([out]))]

pex_for_targets = rule(
    implementation = _pex_for_targets_impl,
    attrs = {
        "pex": attr.label(cfg = _all, providers = [PexInfo], mandatory = True, doc = "A pex_deps or pex_source."),
        "targets": attr.string_list(mandatory = True, doc = "PYTHON:PLATFORM, targets of the lock repository."),
        "_allowlist_function_transition": _ALLOWLIST,
    },
    doc = "A pex_deps or pex_source for several targets in one build, and NAME.json: which tree is for which.",
)
