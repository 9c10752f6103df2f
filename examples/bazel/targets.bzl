"What the repository is built for; the first is what is built when nothing says another."

_PYTHONS = ["3.11", "3.9", "3.10", "3.12", "3.13"]

_PLATFORMS = [
    "manylinux_2_28_x86_64",
    "manylinux_2_28_aarch64",
    "musllinux_1_2_x86_64",
    "macosx_14_0_arm64",
]

TARGETS = ["%s:%s" % (python, platform) for python in _PYTHONS for platform in _PLATFORMS]
