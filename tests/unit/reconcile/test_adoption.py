from __future__ import annotations

import copy
from typing import Any

import pytest

from helmops.reconcile.adoption import differences

SECRET = "correct-horse-battery-staple"


def manifest(
    kind: str = "ConfigMap", name: str = "web", api: str = "v1", **fields: Any
) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **fields}


def changes(
    stored: list[dict[str, Any]],
    rendered: list[dict[str, Any]],
    again: list[dict[str, Any]] | None = None,
) -> tuple[str, ...]:
    return differences(stored, rendered, rendered if again is None else again, namespace="apps")


def test_the_same_objects_change_nothing_whatever_their_order() -> None:
    one, two = manifest(data={"a": "1"}), manifest("Service", spec={"ports": [80]})
    assert changes([one, two], [copy.deepcopy(two), copy.deepcopy(one)]) == ()


def test_nothing_and_nothing_is_the_same() -> None:
    assert changes([], []) == ()


def test_added_and_removed_objects_are_named() -> None:
    found = changes([manifest(name="old")], [manifest(name="new"), manifest("Job", "migrate")])
    assert found == ("adds ConfigMap/new", "adds Job/migrate", "removes ConfigMap/old")


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, "spec.replicas"),
        ({"spec": {"replicas": 1}}, {"spec": {}}, "spec.replicas"),
        ({"spec": {}}, {"spec": {"paused": True}}, "spec.paused"),
        ({"data": {"a": "1"}}, {"data": {"a": 1}}, "data.a"),
        ({"spec": {"on": True}}, {"spec": {"on": 1}}, "spec.on"),
        ({"spec": {"on": 0}}, {"spec": {"on": False}}, "spec.on"),
        ({"spec": [{"b": 1}, {"b": 2}]}, {"spec": [{"b": 1}, {"b": 3}]}, "spec[1].b"),
        ({"spec": {"a": [1]}}, {"spec": {"a": [1, 2]}}, "spec.a"),
        ({"spec": {"a": [1]}}, {"spec": {"a": {"b": 1}}}, "spec.a"),
    ],
    ids=[
        "changed", "removed", "added", "text or number", "truth or one", "zero or untruth",
        "in a list", "longer list", "another shape",
    ],
)  # fmt: skip
def test_a_changed_field_is_named(before: Any, after: Any, field: str) -> None:
    assert changes([manifest(**before)], [manifest(**after)]) == (f"changes ConfigMap/web {field}",)


def test_a_null_is_the_same_as_nothing_as_for_the_api_server() -> None:
    assert changes([manifest(spec={"a": None})], [manifest(spec={})]) == ()


def test_every_changed_field_is_named_in_order() -> None:
    before, after = manifest(data={"b": "1", "a": "1"}), manifest(data={"b": "2", "a": "2"})
    assert changes([before], [after]) == (
        "changes ConfigMap/web data.a",
        "changes ConfigMap/web data.b",
    )


def test_no_value_is_shown_neither_the_old_nor_the_new() -> None:
    before = manifest("Secret", data={"password": SECRET}, stringData={"url": f"db://{SECRET}"})
    after = manifest("Secret", data={"password": SECRET + "2"}, stringData={"url": "db://"})
    found = changes([before], [after])
    assert found == ("changes Secret/web data.password", "changes Secret/web stringData.url")
    assert SECRET not in " ".join(found)


def test_a_field_that_every_rendering_makes_anew_is_named_as_such() -> None:
    before = manifest("Secret", data={"password": "a", "user": "x"})
    first = manifest("Secret", data={"password": "b", "user": "y"})
    second = manifest("Secret", data={"password": "c", "user": "y"})
    assert changes([before], [first], [second]) == (
        "changes Secret/web data.password (rendered anew each time)",
        "changes Secret/web data.user",
    )


def test_an_object_with_another_name_each_time_is_an_added_one() -> None:
    found = changes(
        [manifest()], [manifest(), manifest("Job", "x1")], [manifest(), manifest("Job")]
    )
    assert found == ("adds Job/x1",)


def test_the_releases_namespace_is_where_an_object_without_one_is() -> None:
    placed = {**manifest(), "metadata": {"name": "web", "namespace": "apps"}}
    elsewhere = {**manifest(), "metadata": {"name": "web", "namespace": "other"}}
    assert changes([manifest()], [placed]) == ("changes ConfigMap/web metadata.namespace",)
    assert changes([manifest()], [elsewhere]) == ("adds ConfigMap/web", "removes ConfigMap/web")


def test_another_api_version_is_another_object() -> None:
    found = changes([manifest(api="apps/v1beta1")], [manifest(api="apps/v1")])
    assert found == ("adds ConfigMap/web", "removes ConfigMap/web")


def test_odd_documents_do_no_harm() -> None:
    odd: list[dict[str, Any]] = [{}, {"metadata": None}, {"kind": "List", "metadata": {}}]
    assert changes(odd, copy.deepcopy(odd)) == ()


def test_more_than_twenty_differences_are_counted() -> None:
    found = changes([], [manifest(name=f"n{number:02}") for number in range(25)])
    assert len(found) == 21
    assert found[-1] == "and 5 more"
    assert len(changes([], [manifest(name=f"n{number:02}") for number in range(20)])) == 20
