"The rules and providers, for BUILD files. docs/bazel.md describes each."

load("//private:cross.bzl", _pex_for_target = "pex_for_target", _pex_for_targets = "pex_for_targets")
load("//private:deploy.bzl", _pex_descriptor = "pex_descriptor", _pexpress_deploy = "pexpress_deploy")
load("//private:deps.bzl", _pex_deps = "pex_deps")
load(
    "//private:providers.bzl",
    _PexDescriptorInfo = "PexDescriptorInfo",
    _PexInfo = "PexInfo",
    _PexInterpretersInfo = "PexInterpretersInfo",
    _PexSourcesInfo = "PexSourcesInfo",
    _PexTargetInfo = "PexTargetInfo",
    _PexWheelsInfo = "PexWheelsInfo",
    _PexpressInfo = "PexpressInfo",
)
load("//private:source.bzl", _pex_source = "pex_source")
load("//private:target.bzl", _pex_bootstrap = "pex_bootstrap", _pex_target = "pex_target", _pex_wheels = "pex_wheels")
load("//private:toolchain.bzl", _pexpress_interpreters = "pexpress_interpreters", _pexpress_toolchain = "pexpress_toolchain")
load("//private:zipapp.bzl", _pex_binary = "pex_binary", _pex_test = "pex_test")

PexDescriptorInfo = _PexDescriptorInfo
PexInfo = _PexInfo
PexInterpretersInfo = _PexInterpretersInfo
PexSourcesInfo = _PexSourcesInfo
PexTargetInfo = _PexTargetInfo
PexWheelsInfo = _PexWheelsInfo
PexpressInfo = _PexpressInfo
pex_binary = _pex_binary
pex_bootstrap = _pex_bootstrap
pex_deps = _pex_deps
pex_descriptor = _pex_descriptor
pex_for_target = _pex_for_target
pex_for_targets = _pex_for_targets
pex_source = _pex_source
pex_target = _pex_target
pex_test = _pex_test
pex_wheels = _pex_wheels
pexpress_deploy = _pexpress_deploy
pexpress_interpreters = _pexpress_interpreters
pexpress_toolchain = _pexpress_toolchain
