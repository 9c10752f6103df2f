"One file to run: programs and tests."

load(":actions.bzl", "run_pexpress")
load(":providers.bzl", "PexInfo")
load(":toolchain.bzl", "INTERPRETERS", "TOOLCHAIN")

_ATTRS = {
    "data": attr.label_list(allow_files = True, doc = "Files that are there when it is run."),
    "deps": attr.label(providers = [PexInfo], mandatory = True, doc = "A pex_deps."),
    "module": attr.string(doc = "What to run: a module, pkg.mod, or a function of one, pkg.mod:main."),
    "script": attr.string(doc = "What to run: a console script of the wheels."),
    "source": attr.label(providers = [PexInfo], mandatory = True, doc = "A pex_source."),
}

def _zipapp(ctx, test):
    deps, source = ctx.attr.deps[PexInfo], ctx.attr.source[PexInfo]
    if deps.kind != "deps" or source.kind != "source":
        fail("%s: deps is a pex_deps, and source a pex_source" % ctx.label)
    out = ctx.actions.declare_file(ctx.label.name + ".pyz")
    args = ctx.actions.args()
    args.add("--deps=" + deps.tree.path)
    args.add("--source=" + source.tree.path)
    args.add("--out=" + out.path)
    if ctx.attr.module:
        args.add("--module=" + ctx.attr.module)
    if ctx.attr.script:
        args.add("--script=" + ctx.attr.script)
    interpreter = ctx.toolchains[INTERPRETERS].interpreters.paths.get(deps.python)
    if test:
        args.add("--test")
        if not interpreter:
            fail("%s: no Python %s on this machine to test with: install it, or name it in a pexpress_interpreters toolchain" %
                 (ctx.label, deps.python))
        args.add("--interpreter=" + interpreter)
    run_pexpress(ctx, "zipapp", args, depset([deps.tree, source.tree]), [out], "PexZipapp", "Writing the zipapp %s" % ctx.label)
    return [DefaultInfo(files = depset([out]), executable = out, runfiles = ctx.runfiles(files = ctx.files.data))]

def _pex_binary_impl(ctx):
    return _zipapp(ctx, False)

pex_binary = rule(
    implementation = _pex_binary_impl,
    attrs = _ATTRS,
    executable = True,
    toolchains = [TOOLCHAIN, INTERPRETERS],
    doc = "One file that holds both PEXes and runs on any machine with that Python: what `pexpress export` writes.",
)

def _pex_test_impl(ctx):
    if not ctx.attr.module and not ctx.attr.script:
        fail("%s: say what to run: module = \"unittest\" or module = \"pytest\", and args" % ctx.label)
    return _zipapp(ctx, True)

pex_test = rule(
    implementation = _pex_test_impl,
    attrs = _ATTRS,
    test = True,
    toolchains = [TOOLCHAIN, INTERPRETERS],
    doc = "A test that runs in the environment that is deployed.",
)
