"What the rules tell each other."

PexTargetInfo = provider(
    doc = "What PEXes are built for, and the runtime that they carry.",
    fields = {
        "bootstrap": "Directory (File): pex's runtime, by `pexpress compose bootstrap`.",
        "platform": "String: the platform tag, such as manylinux_2_28_x86_64.",
        "python": "String: the Python version, such as 3.11.",
    },
)

PexWheelsInfo = provider(
    doc = "The wheels that a lock has for a target.",
    fields = {
        "wheels": "depset of Files, by the names that they were published under.",
    },
)

PexInfo = provider(
    doc = "A tree: deps.pex or source.pex.",
    fields = {
        "blobs": "Directory (File): the content of each of the tree's files, named by its hash. Building it brings them " +
                 "into a remote cache.",
        "kind": "String: deps or source.",
        "platform": "String: the platform tag that it is for.",
        "python": "String: the Python version that it is for.",
        "summary": "File: all of the tree but its files' contents; small.",
        "tree": "Directory (File): the PEX itself.",
    },
)

PexSourcesInfo = provider(
    doc = "The Python files of a target and of what it depends on.",
    fields = {
        "files": "depset of Files.",
        "imports": "depset of strings: directories to import from, below the workspace.",
    },
)

PexpressInfo = provider(
    doc = "The pexpress binary.",
    fields = {"binary": "File: one static executable."},
)

PexInterpretersInfo = provider(
    doc = "Pythons on the machines that run zipapps and tests.",
    fields = {"paths": "Dictionary from version, such as 3.11, to the absolute path of an interpreter."},
)

PexDescriptorInfo = provider(
    doc = "A deployment by digests.",
    fields = {
        "descriptor": "File: what `pexpress deploy --descriptor` takes.",
        "location": "String: the location's name, empty if the configuration says it.",
    },
)
