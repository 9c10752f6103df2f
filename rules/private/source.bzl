"source.pex: a project's own files."

load(":actions.bzl", "run_pexpress", "target_args")
load(":names.bzl", "NAMES_ATTRS", "ascii_only", "check_names")
load(":providers.bzl", "PexInfo", "PexSourcesInfo", "PexTargetInfo")
load(":sources.bzl", "import_dir", "sources_aspect")
load(":toolchain.bzl", "TOOLCHAIN")

def _escaped(name):
    "Returns a name as the left side of --file and --link takes it."
    return name.replace("\\", "\\\\").replace("=", "\\=")

def _file_arg(file):
    return "--file=%s=%s" % (_escaped(file.short_path), file.path)

def _sources(ctx):
    """Collects files and import directories, and refuses what cannot be part of a source tree."""
    transitive = [d[PexSourcesInfo].files for d in ctx.attr.deps]
    files = depset(ctx.files.srcs + ctx.files.data, transitive = transitive)
    imports = [import_dir(ctx.label, i) for i in ctx.attr.imports]
    for d in ctx.attr.deps:
        imports += d[PexSourcesInfo].imports.to_list()
    names = [f.short_path for f in files.to_list()]
    for name in names:
        if name.startswith("../"):
            fail("%s: %s comes from another repository; what a lock has belongs into pex_deps, and what is to be deployed as source into this one" %
                 (ctx.label, name))
    check_names(ctx, names + ctx.attr.links.keys())
    return files, imports

def _args(ctx, target, files, imports):
    args = target_args(ctx, target)
    args.add_all(files, map_each = _file_arg)
    args.add_all(["%s=%s" % (_escaped(k), v) for k, v in ctx.attr.links.items()], format_each = "--link=%s")
    if ascii_only(ctx):
        args.add("--ascii")
    if ctx.attr.project:
        args.add("--as-project=" + ctx.attr.project)
        if ctx.attr.location:
            args.add("--location=" + ctx.attr.location)
    else:
        args.add_all([i for i in imports if i], format_each = "--source-root=%s", uniquify = True)
    return args

def _pex_source_impl(ctx):
    if ctx.attr.location and not ctx.attr.project:
        fail("%s: location is a project's: say which with project" % ctx.label)
    if ctx.attr.imports and ctx.attr.project:
        fail("%s: a project's configuration says its source roots: imports is for files alone" % ctx.label)
    target = ctx.attr.target[PexTargetInfo]
    files, imports = _sources(ctx)
    inputs = depset([target.bootstrap], transitive = [files])
    tree = ctx.actions.declare_directory(ctx.label.name + ".pex")
    args = _args(ctx, target, files, imports)
    args.add("--out=" + tree.path)
    run_pexpress(ctx, "source", args, inputs, [tree], "PexSource", "Composing source.pex %s" % ctx.label)

    blobs = ctx.actions.declare_directory(ctx.label.name + ".blobs")
    summary = ctx.actions.declare_file(ctx.label.name + ".summary.json")
    args = _args(ctx, target, files, imports)
    args.add("--blobs=" + blobs.path)
    args.add("--summary=" + summary.path)
    run_pexpress(ctx, "source", args, inputs, [blobs, summary], "PexSourceSummary", "Summarizing source.pex %s" % ctx.label)
    return [
        DefaultInfo(files = depset([tree])),
        OutputGroupInfo(summary = depset([summary])),
        PexInfo(
            kind = "source",
            python = target.python,
            platform = target.platform,
            tree = tree,
            blobs = blobs,
            summary = summary,
        ),
    ]

pex_source = rule(
    implementation = _pex_source_impl,
    attrs = dict({
        "data": attr.label_list(allow_files = True, doc = "Other files that the code needs at run time."),
        "deps": attr.label_list(
            aspects = [sources_aspect],
            doc = "Python libraries of this repository: py_library of rules_python or of Bazel; their srcs, data and imports count, " +
                  "and those of their deps.",
        ),
        "imports": attr.string_list(doc = "Directories to import from, relative to the package, before the workspace's top."),
        "links": attr.string_dict(
            doc = "Symlinks in the tree and their targets, relative as in the file system. Bazel reads symlinks among srcs through.",
        ),
        "location": attr.string(doc = "The project's location that the files are for; its only one if empty."),
        "project": attr.string(
            doc = "Directory of a project, relative to the workspace, \".\" for its top. Its configuration, which must be among srcs, " +
                  "says what goes in, as with `pexpress build`. If empty, exactly the files go in, at their paths in the workspace.",
        ),
        "srcs": attr.label_list(allow_files = True, doc = "The project's files."),
        "target": attr.label(
            providers = [PexTargetInfo],
            mandatory = True,
            doc = "What to build for: `@LOCK//:target` of a lock repository.",
        ),
    }, **NAMES_ATTRS),
    toolchains = [TOOLCHAIN],
    doc = "source.pex of a project's files, with the digest that `pexpress build` gives it.",
)
