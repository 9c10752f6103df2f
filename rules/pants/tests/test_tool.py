"""The binary is known by its bytes, wherever it comes from."""

import hashlib

import pytest
from conftest import BINARY
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.platform import Platform

from pexpress_pants.tool import PexpressTool


def test_same_from_everywhere(repository, elsewhere):
    found = repository.runner.request(PexpressTool, [])
    repository.options(pexpress_search_path=f"['{elsewhere}']")
    assert repository.runner.request(PexpressTool, []) == found
    content = BINARY.read_bytes()
    known = f"1|{Platform.create_for_localhost().value}|{hashlib.sha256(content).hexdigest()}|{len(content)}"
    repository.options(
        pexpress_version="1", pexpress_known_versions=f"['{known}']", pexpress_url_template=f"file://{BINARY}"
    )
    assert repository.runner.request(PexpressTool, []) == found


def test_none(repository, tmp_path):
    repository.options(pexpress_search_path=f"['{tmp_path}']")
    with pytest.raises(ExecutionError, match=r"no pexpress in .*\[pexpress\].search_path"):
        repository.runner.request(PexpressTool, [])
