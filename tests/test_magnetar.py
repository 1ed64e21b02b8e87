"""The package itself."""

import tomllib
from pathlib import Path

import pytest

import magnetar
from magnetar.client.cluster import Cluster


def test_public_names_lead_to_where_they_live() -> None:
    assert magnetar.Cluster is Cluster
    assert "Cluster" in magnetar.__all__


def test_a_name_that_is_not_there_is_missing_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        magnetar.Nothing  # noqa: B018


def test_the_version_has_one_home() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "magnetar.__version__"}
