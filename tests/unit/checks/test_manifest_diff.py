from __future__ import annotations

from typing import Any

from helmops.checks.manifest_diff import manifest_diff


def config(name: str = "web", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "data": data}


def diff(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    return manifest_diff(before, after, "shop")


def test_what_is_the_same_is_not_there() -> None:
    assert diff([config(a="1"), config("b")], [config("b"), config(a="1")]) == ""


def test_a_changed_object_shows_its_changed_lines() -> None:
    assert diff([config(a="1", b="2")], [config(a="1", b="3")]) == (
        "~ ConfigMap/shop/web\n"
        "@@ -4,4 +4,4 @@\n"
        "   name: web\n"
        " data:\n"
        "   a: '1'\n"
        "-  b: '2'\n"
        "+  b: '3'"
    )


def test_a_text_of_many_lines_is_compared_line_by_line() -> None:
    before = "".join(f"line {n}\n" for n in range(50))

    lines = diff([config(a=before)], [config(a=before.replace("line 25\n", "other\n"))]).split("\n")

    assert [line for line in lines if line[0] in "+-"] == ["-    line 25", "+    other"]


def test_objects_that_came_and_went_are_told() -> None:
    told = diff([config("old", a="1")], [config("new", a="1")])

    assert "+ ConfigMap/shop/new (added)\n+apiVersion: v1\n" in told
    assert told.endswith("- ConfigMap/shop/old (removed)")
    assert "-apiVersion" not in told


def test_another_version_of_a_kind_is_a_change_of_the_object() -> None:
    told = diff([config() | {"apiVersion": "x/v1beta1"}], [config() | {"apiVersion": "x/v1"}])

    assert "-apiVersion: x/v1beta1\n+apiVersion: x/v1\n" in told
    assert "added" not in told


def test_of_secrets_only_the_keys_are_seen() -> None:
    told = diff([secret(pin="b25l", same="x", gone="y")], [secret(pin="dHdv", same="x", more="z")])

    assert told.split("\n")[3:] == [
        "   name: web",
        " data:",
        "-  pin: '*** (before)'",
        "+  pin: '*** (now)'",
        "   same: '***'",
        "-  gone: '*** (before)'",
        "+  more: '*** (now)'",
    ]


def test_a_new_secret_is_masked() -> None:
    told = diff([], [secret(pin="b25l") | {"stringData": {"a": "plain"}}])

    assert "pin: '*** (new)'" in told
    assert "b25l" not in told
    assert "plain" not in told


def test_a_huge_object_is_only_named() -> None:
    huge = "".join(f"line {n}\n" for n in range(4000))

    assert diff([config(a=huge)], [config(a=huge + "more")]) == (
        "~ ConfigMap/shop/web (changed; too large to be compared here)"
    )


def test_objects_of_no_kind_break_nothing() -> None:
    assert diff([{}], [{"metadata": None}]).startswith("~ ")
