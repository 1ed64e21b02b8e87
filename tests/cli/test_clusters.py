"""`magnetar clusters`."""

import json
from typing import Any


def test_clusters_are_listed_and_shown(run: Any, admin: Any) -> None:
    admin.answers["clusters"] = ["west", "here"]
    admin.answers["cluster"] = {"serviceUrl": "http://west:8080"}
    assert run("clusters", "list").out == "here\nwest\n"
    assert json.loads(run("clusters", "show", "west").out) == {"serviceUrl": "http://west:8080"}


def test_another_cluster_is_made_known_and_forgotten(run: Any, admin: Any) -> None:
    url = ("--service-url", "http://west:8080")
    assert run("clusters", "create", "west", *url).code == 0
    assert run("clusters", "delete", "west").code == 0
    assert admin.calls == [
        ("create_cluster", "west", "http://west:8080", ""),
        ("delete_cluster", "west"),
    ]
    assert run("clusters", "create", "west").code == 2
