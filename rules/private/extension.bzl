"The same repositories for bzlmod."

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_file")
load(":lock.bzl", "build_file", "select_wheels", "wheel_repositories")
load(":tool_repository.bzl", "pexpress_interpreters_repository", "pexpress_tool_repository")

def _files_repository_impl(ctx):
    ctx.file("BUILD.bazel", ctx.attr.build)

_files_repository = repository_rule(
    implementation = _files_repository_impl,
    attrs = {"build": attr.string(mandatory = True)},
)

def _binary(ctx):
    """Returns the pexpress binary that reads the locks: that of PATH or $PEXPRESS."""
    binary = ctx.os.environ.get("PEXPRESS", "") or ctx.which("pexpress")
    if not binary:
        fail("no pexpress on PATH: install it, or set PEXPRESS to where it is")
    return str(binary)

def _pexpress_impl(ctx):
    tools, interpreters = {}, {}
    for module in ctx.modules:
        for tag in module.tags.tool:
            if tag.name not in tools:
                tools[tag.name] = True
                pexpress_tool_repository(name = tag.name, path = tag.path, urls = tag.urls, sha256 = tag.sha256)
        for tag in module.tags.interpreters:
            if tag.name not in interpreters:
                interpreters[tag.name] = True
                pexpress_interpreters_repository(name = tag.name, paths = tag.paths)
        for tag in module.tags.lock:
            lock = ctx.path(tag.lock)
            pex_lock = ctx.path(tag.pex_lock) if tag.pex_lock else None
            binary = ctx.path(tag.pexpress) if tag.pexpress else _binary(ctx)
            selection = select_wheels(ctx, binary, lock, tag.targets, tag.extras, tag.groups, pex_lock)
            wheels, pex = wheel_repositories(tag.name, selection, str(lock.dirname), tag.pex_urls)
            for w in wheels.values():
                http_file(name = w.repository, downloaded_file_path = w.filename, sha256 = w.sha256, urls = w.urls)
            _files_repository(name = tag.name, build = build_file(str(tag.lock), selection, wheels, pex, tag.targets))

_lock = tag_class(
    attrs = {
        "extras": attr.string_list(doc = "Extras of the lock to select."),
        "groups": attr.string_list(doc = "Dependency groups of the lock to select."),
        "lock": attr.label(mandatory = True, doc = "pylock.toml (PEP 751)."),
        "name": attr.string(mandatory = True, doc = "Of the repository."),
        "pex_lock": attr.label(doc = "Another lock, which has the pex wheel that the runtime comes from."),
        "pex_urls": attr.string_list(doc = "Where the pex wheel is, if no lock says it."),
        "pexpress": attr.label(doc = "The pexpress binary for this machine; if not given, $PEXPRESS, else the one on PATH."),
        "targets": attr.string_list(mandatory = True, doc = "PYTHON:PLATFORM; the first is the default."),
    },
    doc = "The wheels of a lock, as pexpress_lock_repository declares them.",
)

_tool = tag_class(
    attrs = {
        "name": attr.string(default = "pexpress_tool", doc = "Of the repository."),
        "path": attr.string(doc = "Absolute path of the binary; if empty, $PEXPRESS, else the one on PATH."),
        "sha256": attr.string(doc = "Of what urls names."),
        "urls": attr.string_list(doc = "Where to download the binary; needs sha256."),
    },
    doc = "The pexpress binary, as pexpress_tool_repository declares it.",
)

_interpreters = tag_class(
    attrs = {
        "name": attr.string(default = "pexpress_interpreters", doc = "Of the repository."),
        "paths": attr.string_dict(doc = "Absolute paths of interpreters by version."),
    },
    doc = "The Pythons of this machine, as pexpress_interpreters_repository declares them.",
)

pexpress = module_extension(
    implementation = _pexpress_impl,
    tag_classes = {
        "interpreters": _interpreters,
        "lock": _lock,
        "tool": _tool,
    },
    environ = ["PEXPRESS", "PATH"],
    doc = "Locks and tools.",
)
