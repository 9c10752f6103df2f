"""The functions that need no engine."""

import pytest
from pants.engine.fs import FileDigest

from pexpress_pants.check import environment_of
from pexpress_pants.errors import PexpressError
from pexpress_pants.location import configuration
from pexpress_pants.lock import Wheel, read_wheel
from pexpress_pants.project import ancestors, owner
from pexpress_pants.wheels import download_of

URL = Wheel("a", "1", "a-1-py3-none-any.whl", "file:///a.whl", True, "0" * 64, 5)


def test_owner_is_the_innermost():
    assert owner("a/b/c/d.py", ["", "a", "a/b", "a/bc"]) == "a/b"
    assert owner("x.py", ["a"]) is None


def test_ancestors():
    assert ancestors(["a/b", "c"]) == ["", "a", "a/b", "c"]


def test_download():
    assert download_of(URL).expected_digest == FileDigest("0" * 64, 5)


def test_download_without_size():
    with pytest.raises(PexpressError, match=r"does not say the size of a-1-py3-none-any\.whl"):
        download_of(Wheel("a", "1", "a-1-py3-none-any.whl", "file:///a.whl", True, "0" * 64, 0))


def test_wheel_is_where_the_lock_says():
    said = {"filename": "a.whl", "sha256": "0" * 64, "path": "../w/a.whl", "url": "https://host/a.whl"}
    assert (read_wheel(said, "svc/x").where, read_wheel(said, "svc/x").is_url) == ("svc/w/a.whl", False)
    absolute = read_wheel({**said, "path": "/w/a.whl"}, "svc")
    assert (absolute.where, absolute.is_url) == ("file:///w/a.whl", True)
    assert read_wheel({**said, "path": "", "url": "https://host/a.whl#sha256=1"}, "svc").where == "https://host/a.whl"


def test_configuration_is_toml():
    run = {"preset": "command", "args": ["a b", 'q"\\'], "readiness": {"tcp": True}, "env": {"K.é": "1\n"}}
    assert configuration("my.svc", run) == (
        'location."my.svc" = {"preset" = "command", "args" = ["a b", "q\\"\\\\"], '
        '"readiness" = {"tcp" = true}, "env" = {"K.é" = "1\\n"}}\n'
    )


@pytest.mark.parametrize(
    ("platform", "system", "machine"),
    [
        ("manylinux_2_28_x86_64", "linux", "x86_64"),
        ("musllinux_1_2_aarch64", "linux", "aarch64"),
        ("macosx_11_0_arm64", "darwin", "arm64"),
    ],
)
def test_markers(platform, system, machine):
    environment = environment_of("3.11.4", platform)
    assert (environment["sys_platform"], environment["platform_machine"]) == (system, machine)
    assert (environment["python_version"], environment["python_full_version"]) == ("3.11", "3.11.4")
