import copy
import json
from typing import Any

import pytest

from helmops.resolve.digest import (
    config_digest,
    declaration_digest,
    plan_digest,
    revision_digest,
)

#: As Helm 3.19 stores a release, the parts that matter.
HELM_3: dict[str, Any] = {
    "chart": {
        "metadata": {"name": "web", "version": "1.0.0", "apiVersion": "v2"},
        "lock": None,
        "templates": [
            {"name": "templates/a.yaml", "data": "YQ=="},
            {"name": "templates/b.yaml", "data": "Yg=="},
        ],
        "values": {"replicas": 1, "none": None},
        "schema": None,
        "files": None,
    },
    "config": {"replicas": 2, "gone": None},
    "manifest": "---\nkind: ConfigMap\n",
    "hooks": [
        {
            "name": "t",
            "kind": "Pod",
            "path": "web/templates/t.yaml",
            "manifest": "kind: Pod\n",
            "events": ["test"],
            "last_run": {"started_at": "", "completed_at": "", "phase": ""},
        }
    ],
}


def digest(release: dict[str, Any]) -> str:
    return revision_digest(
        release["chart"], release.get("config"), release["manifest"], release.get("hooks")
    )


def changed(path: str, value: object) -> dict[str, Any]:
    release = copy.deepcopy(HELM_3)
    at: Any = release
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    at[int(last) if last.isdigit() else last] = value
    return release


def test_a_digest_is_lower_case_hex_of_sha256() -> None:
    assert len(digest(HELM_3)) == 64
    assert digest(HELM_3) == digest(HELM_3).lower()


def test_digests_stay_the_same_from_version_to_version() -> None:
    """Records hold digests: a change here would make every release look changed."""
    assert config_digest({"b": 1.0, "a": [True, None, "é"]}) == (
        "17c8c6f7f948ee1c9b93b1bc35f6edc29cbaf3022bff7d076d1c4831dd8a44a2"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hooks.0.last_run", {"started_at": "2026-01-01T00:00:00Z", "phase": "Succeeded"}),
        ("hooks.0.weight", 0),
        ("hooks.0.delete_policies", None),
        ("hooks.0.delete_policies", []),
        ("chart.files", []),
        ("chart.schema", ""),
        ("chart.modtime", "2026-01-01T00:00:00Z"),
        ("chart.schemamodtime", "0001-01-01T00:00:00Z"),
        ("chart.lock", {"generated": "2026-01-01T00:00:00Z", "digest": "", "dependencies": None}),
        ("chart.metadata.deprecated", False),
        ("chart.metadata.keywords", None),
        ("chart.metadata.annotations", {}),
        ("chart.values", {"replicas": 1.0}),
        ("chart.templates.0", {"name": "templates/a.yaml", "data": "YQ==", "modtime": "x"}),
        ("config", {"replicas": 2.0, "gone": None}),
        ("info", {"status": "superseded"}),
        ("labels", {"a": "b"}),
        ("apply_method", "ssa"),
    ],
)
def test_what_helm_rewrites_or_encodes_otherwise_does_not_count(path: str, value: object) -> None:
    assert digest(changed(path, value)) == digest(HELM_3)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("manifest", "---\nkind: Secret\n"),
        ("config", {"replicas": 3, "gone": None}),
        ("config", {"replicas": 2}),
        ("config", {"replicas": "2", "gone": None}),
        ("chart.metadata.version", "1.0.1"),
        ("chart.metadata.annotations", {"a": "b"}),
        ("chart.values", {"replicas": 2}),
        ("chart.schema", "e30="),
        ("chart.files", [{"name": "LICENSE", "data": "YQ=="}]),
        ("chart.templates.0.data", "Yw=="),
        ("chart.templates.0.name", "templates/c.yaml"),
        ("hooks.0.manifest", "kind: Job\n"),
        ("hooks.0.events", ["pre-install"]),
        ("hooks.0.weight", 1),
        ("hooks", []),
    ],
)
def test_what_a_revision_is_made_of_counts(path: str, value: object) -> None:
    assert digest(changed(path, value)) != digest(HELM_3)


def test_the_order_of_files_and_hooks_does_not_count() -> None:
    release = copy.deepcopy(HELM_3)
    release["hooks"].append({**release["hooks"][0], "name": "u"})
    reordered = copy.deepcopy(release)
    reordered["hooks"].reverse()
    reordered["chart"]["templates"].reverse()
    assert digest(reordered) == digest(release)


def test_absent_values_are_empty_values() -> None:
    release = copy.deepcopy(HELM_3)
    release["config"] = {}
    without = {key: item for key, item in release.items() if key != "config"}
    assert digest(without) == digest(release)
    assert config_digest(None) == config_digest({})


def test_values_are_equal_to_what_helm_stored_of_them() -> None:
    values = {"a": 1.0, "b": 2**53 + 1, "c": -0.0, "d": [1e3, 0.1], "e": {"f": None}, "g": True}
    text = '{"g":true,"e":{"f":null},"d":[1000,0.1],"c":-0,"b":9007199254740992,"a":1}'
    stored = json.loads(text)
    assert config_digest(values) == config_digest(stored)


def test_a_boolean_is_no_number_and_text_is_no_number() -> None:
    assert len({config_digest({"a": v}) for v in (True, 1, "1", "true", None, [1], 1.5)}) == 7


def test_a_number_too_large_for_a_float_has_a_digest() -> None:
    assert config_digest({"a": 10**400}) != config_digest({"a": 10**401})


def test_a_changed_declaration_is_seen() -> None:
    spec = {"interval": "1m", "values": {"a": 1}}
    assert declaration_digest(spec) == declaration_digest(dict(reversed(spec.items())))
    assert declaration_digest(spec) != declaration_digest({**spec, "interval": "2m"})


def test_a_plan_is_its_chart_values_and_objects_in_whatever_order() -> None:
    def plan(**differing: Any) -> str:
        same: dict[str, Any] = {
            "chart_name": "web",
            "chart_version": "1.0.0",
            "values": {"a": 1},
            "objects": [{"kind": "A"}, {"kind": "B"}],
        }
        return plan_digest(**(same | differing))

    assert plan() == plan(objects=[{"kind": "B"}, {"kind": "A"}])
    different = {
        plan(),
        plan(chart_name="db"),
        plan(chart_version="1.0.1"),
        plan(values={}),
        plan(objects=[{"kind": "A"}]),
    }
    assert len(different) == 5


def test_what_is_no_json_has_no_digest() -> None:
    with pytest.raises(TypeError):
        config_digest({"a": object()})
