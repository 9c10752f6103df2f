"Which files a Python target consists of, whoever's rule made it."

load(":providers.bzl", "PexSourcesInfo")

def _files_of(targets):
    return [t[DefaultInfo].files for t in targets if DefaultInfo in t]

def import_dir(label, path):
    """Returns a directory to import from, below the workspace.

    Args:
      label: of the target that says it
      path: relative to the target's package

    Returns:
      a path; fails if it leads out of the workspace
    """
    parts = label.package.split("/") if label.package else []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                fail("imports of %s: %r leads out of the workspace" % (label, path))
            parts.pop()
        elif part not in ["", "."]:
            parts.append(part)
    return "/".join(parts)

def _sources_aspect_impl(target, ctx):
    attrs = ctx.rule.attr
    files, imports = [], []
    for name in ["srcs", "data"]:
        targets = getattr(attrs, name, [])
        if type(targets) == "list":
            files += _files_of(targets)
    for dep in getattr(attrs, "deps", []):
        if PexSourcesInfo in dep:
            files.append(dep[PexSourcesInfo].files)
            imports.append(dep[PexSourcesInfo].imports)
    own = [import_dir(target.label, i) for i in getattr(attrs, "imports", [])]
    return [PexSourcesInfo(files = depset(transitive = files), imports = depset(own, transitive = imports, order = "preorder"))]

# py_library of rules_python, Bazel's own, and rules like it have srcs, data, deps and imports: to read those takes no
# provider, whose symbol one Bazel has and another has not.
sources_aspect = aspect(
    implementation = _sources_aspect_impl,
    attr_aspects = ["deps"],
    doc = "Collects srcs, data and imports along deps.",
)
