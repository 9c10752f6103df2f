"""check: each project in one version."""

from conftest import lock, locked, wheel


def said(results) -> str:
    return "".join(result.stderr for result in results.results)


def test_no_conflict(repository):
    repository.write({"svc/3rdparty/BUILD": 'python_requirement(name="alpha", requirements=["alpha>=1,<2"])'})
    results = repository.check("svc:web")
    assert (results.exit_code, said(results)) == (0, "")


def test_requirement_that_the_lock_does_not_meet(repository):
    repository.write({"svc/3rdparty/BUILD": 'python_requirement(name="alpha", requirements=["Alpha>=2"])'})
    results = repository.check("svc:web")
    assert results.exit_code == 1
    assert "svc/3rdparty:alpha requires Alpha>=2, the lock of svc:deps has 1.0" in said(results)


def test_requirement_that_the_lock_lacks(repository):
    repository.write(
        {"svc/3rdparty/BUILD": 'python_requirement(name="alpha", requirements=["gamma"], modules=["alpha"])'}
    )
    results = repository.check("svc:web")
    assert "requires gamma, which the lock of svc:deps lacks" in said(results)


def test_requirement_for_another_machine(repository):
    repository.write(
        {
            "svc/3rdparty/BUILD": """python_requirement(name="alpha", requirements=[
                "alpha==7; sys_platform == 'win32'",
                "alpha==8; python_version < '3.9'",
                "alpha==9; platform_machine == 'aarch64'",
            ])"""
        }
    )
    assert said(repository.check("svc:web")) == ""


def test_wheels_selected_twice(repository):
    name, content = wheel("alpha", "3.0")
    repository.write(
        {
            f"wheels/{name}": content,
            "svc/pylock.toml": lock(
                locked("alpha", "1.0", "python_version < '3.12'"), locked("alpha", "3.0", "python_version > '3.8'")
            ),
        }
    )
    results = repository.check("svc:web")
    assert results.exit_code == 1
    assert "alpha is selected twice" in said(results)


def test_two_locations_of_one_name(repository):
    repository.write(
        {
            "other/BUILD": 'pexpress_location(name="also", location="web", deps="//svc:deps", source="//svc:source", '
            'run={"preset": "module", "module": "app.main"})'
        }
    )
    assert "the location web is that of other:also, too" in said(repository.check("svc:web", "other:also"))
