"For WORKSPACE."

load("//private:lock_repository.bzl", _pexpress_lock_repository = "pexpress_lock_repository")
load(
    "//private:tool_repository.bzl",
    _pexpress_interpreters_repository = "pexpress_interpreters_repository",
    _pexpress_tool_repository = "pexpress_tool_repository",
)

pexpress_interpreters_repository = _pexpress_interpreters_repository
pexpress_lock_repository = _pexpress_lock_repository
pexpress_tool_repository = _pexpress_tool_repository
