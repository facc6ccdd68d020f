"""pyproject.toml, requirements.lock and environment.yml describe the same set."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from rlvo_lib import __version__
from rlvo_lib.config import project_root

ROOT = project_root()


@pytest.fixture(scope="module")
def lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _requirements(project):
    groups = project["optional-dependencies"].values()
    return [Requirement(text) for group in (project["dependencies"], *groups) for text in group]


def test_every_direct_dependency_is_locked_inside_its_range(project, lock):
    for requirement in _requirements(project):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert Version(lock[name]) in requirement.specifier, requirement


def test_torch_is_exact_and_without_a_local_build_tag(project, lock):
    assert lock["torch"] == "2.13.0"
    assert "torch==2.13.0" in project["dependencies"]


def test_conda_installs_the_lock_and_this_package(project):
    text = (ROOT / "environment.yml").read_text()
    assert "- -r requirements.lock" in text and "- -e ." in text
    python = re.search(r"python=([\d.]+)", text)[1]
    assert Version(python) in Requirement("python" + project["requires-python"]).specifier


def test_every_direct_dependency_has_its_reason_in_the_readme(project):
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    for requirement in _requirements(project):
        assert f"| {requirement.name.lower()} |" in readme, requirement.name


def test_the_version_is_said_once_and_cited():
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {__version__}," in (ROOT / "CHANGELOG.md").read_text()
