"""package: what is in the trees, and what is refused."""

import json

import pytest
from conftest import lock, locked, wheel
from pants.engine.internals.scheduler import ExecutionError

PYPROJECT = """
[project]
name = "svc"
version = "1.0"
dependencies = [{dependencies}]
[tool.uv.sources]
common = {{ path = "../lib" }}
[tool.pexpress.location.web]
preset = "module"
module = "app.main"
"""

BUILD_OF_PROJECT = """
pexpress_deps(name="deps", python="3.11")
pexpress_source(name="source", dependencies=["svc/app"], project=".")
pexpress_location(name="web", deps=":deps", source=":source")
"""

LIBRARY = '[project]\nname = "common"\nversion = "1.0"\n'


def test_location_of_targets(repository):
    files = repository.package("svc:web")
    source = {name for name in files if name.startswith("svc/web/source.pex/") and "/.bootstrap/" not in name}
    assert {name for name in source if name.endswith(("app/main.py", "common/words.py", "__init__.py"))} == {
        "svc/web/source.pex/__pex__/__init__.py",
        "svc/web/source.pex/svc/app/__init__.py",
        "svc/web/source.pex/svc/app/main.py",
        "svc/web/source.pex/lib/src/common/__init__.py",
        "svc/web/source.pex/lib/src/common/words.py",
    }
    assert not any(name.endswith("unused.py") for name in files), "what nothing imports is not shipped"
    filename, content = wheel("alpha", "1.0")
    assert files[f"svc/web/deps.pex/.deps/{filename}"] == (content, True)
    assert all(executable for name, (_, executable) in files.items() if ".pex/" in name)


def test_descriptor_says_what_to_run(repository):
    descriptor = json.loads(repository.package("svc:web")["svc/web/descriptor.json"][0])
    assert descriptor["location"] == "web"
    assert descriptor["python"] == "3.11"
    assert descriptor["run"]["preset"] == "module"
    assert descriptor["run"]["args"] == ["app.main"]
    assert descriptor["run"]["env"] == {"A": "1"}
    assert descriptor["source"]["roots"] == ["lib/src", "svc"]


def test_deps_alone(repository):
    files = repository.package("svc:deps")
    assert {name.partition("/.deps/")[2] for name in files if "/.deps/" in name} == {
        "alpha-1.0-py3-none-any.whl",
        "beta-2.0-py3-none-any.whl",
    }


def test_location_of_a_project(repository):
    repository.write(
        {
            "svc/BUILD": BUILD_OF_PROJECT,
            "svc/pyproject.toml": PYPROJECT.format(dependencies='"common"'),
            "svc/notes.txt": "a project has what lies in it\n",
            "lib/pyproject.toml": LIBRARY,
        }
    )
    files = repository.package("svc:web")
    assert "svc/web/source.pex/notes.txt" in files
    assert "svc/web/source.pex/app/main.py" in files
    assert any(name.endswith("/common/words.py") for name in files)
    assert any(name.endswith("/common/unused.py") for name in files), "a local project comes whole"


def test_project_that_lacks_what_it_imports(repository):
    repository.write(
        {
            "svc/BUILD": BUILD_OF_PROJECT,
            "svc/pyproject.toml": PYPROJECT.format(dependencies=""),
            "lib/pyproject.toml": LIBRARY,
        }
    )
    with pytest.raises(ExecutionError, match=r"(?s)svc:source imports files.*lib/src/common/words.py"):
        repository.package("svc:web")


def test_project_whose_location_is_below_it(repository):
    repository.write(
        {
            "svc/BUILD": BUILD_OF_PROJECT,
            "svc/pyproject.toml": PYPROJECT.format(dependencies='"common"') + 'directory = "app"\n',
            "svc/app/main.py": "print(1)\n",
            "svc/app/pylock.toml": "",
            "svc/__init__.py": "",
            "lib/pyproject.toml": LIBRARY,
        }
    )
    assert "svc/web/source.pex/main.py" in repository.package("svc:web")


def test_name_that_looks_like_two(repository):
    repository.write(
        {
            "svc/app/a=b.txt": "text",
            "svc/app/BUILD": "resources(name='r', sources=['*.txt'])\npython_sources(dependencies=[':r'])",
        }
    )
    assert repository.package("svc:web")["svc/web/source.pex/svc/app/a=b.txt"][0] == b"text"


def test_name_that_cannot_be_an_argument(repository):
    repository.write(
        {
            "svc/app/a\nb.txt": "",
            "svc/app/BUILD": "resources(name='r', sources=['*.txt'])\npython_sources(dependencies=[':r'])",
        }
    )
    with pytest.raises(ExecutionError, match=r"'svc/app/a\\nb.txt', which svc:source depends on"):
        repository.package("svc:web")


def test_wheel_that_is_not_what_the_lock_says(repository):
    repository.write({"wheels/alpha-1.0-py3-none-any.whl": wheel("alpha", "1.1")[1]})
    with pytest.raises(ExecutionError, match=r"alpha-1.0-py3-none-any.whl has the sha256 .*lock again"):
        repository.package("svc:web")


def test_one_wheel_bumped(repository):
    before = repository.package("svc:web")
    name, content = wheel("beta", "2.1")
    repository.write(
        {"svc/pylock.toml": lock(locked("alpha", "1.0"), locked("beta", "2.1")), f"wheels/{name}": content}
    )
    after = repository.package("svc:web")
    changed = {n.split("deps.pex/")[1] for n in after if "deps.pex/" in n and before.get(n) != after[n]}
    # pex is a symlink to __main__.py
    assert changed == {".deps/beta-2.1-py3-none-any.whl", "PEX-INFO", "__main__.py", "__pex__/__init__.py", "pex"}
    assert {n for n in after if "source.pex/" in n and before.get(n) != after[n]} == set()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ('deps=":deps", source=":source"', "needs the field run"),
        ('deps=":source", source=":source", run={"preset": "module"}', "must be a pexpress_deps"),
        ('deps=":deps", source=":deps", run={"preset": "module"}', "must be a pexpress_source"),
        ('deps=":deps", source=":source", run={"preset": "rocket"}', "preset must be one of"),
        ('deps=":deps", source=":source", run=["module"]', "must be a dictionary"),
        ('deps=":deps", source=":none", run={"preset": "module"}', "svc:none"),
    ],
)
def test_refused(repository, fields, says):
    head = 'pexpress_deps(name="deps", python="3.11")\npexpress_source(name="source", dependencies=["svc/app"])\n'
    repository.write({"svc/BUILD": f'{head}pexpress_location(name="web", {fields})'})
    with pytest.raises(ExecutionError, match=says):
        repository.package("svc:web")


def test_no_lock(repository):
    repository.write({"svc/BUILD": 'pexpress_deps(name="deps", lock="pylock.none.toml", python="3.11")'})
    with pytest.raises(ExecutionError, match=r"svc:deps has no lock svc/pylock.none.toml: run pexpress lock"):
        repository.package("svc:deps")


def test_no_pex_wheel(repository):
    repository.options(pexpress_pex_lock="")
    with pytest.raises(ExecutionError, match=r"no lock says where pex-.* name it in \[pexpress\].pex_lock"):
        repository.package("svc:deps")
