"For MODULE.bazel: `use_extension(\"@pexpress_rules//:extensions.bzl\", \"pexpress\")`."

load("//private:extension.bzl", _pexpress = "pexpress")

pexpress = _pexpress
