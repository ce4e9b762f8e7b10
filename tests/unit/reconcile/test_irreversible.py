from __future__ import annotations

from typing import Any

import pytest

from helmops.model.declarations import Barrier
from helmops.reconcile.irreversible import irreversible_steps


def thing(kind: str, name: str = "db", **rest: Any) -> dict[str, Any]:
    annotations = rest.pop("annotations", {})
    metadata = {"name": name, "annotations": annotations, **rest.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **rest}


def hook(kind: str, events: str, **annotations: str) -> dict[str, Any]:
    return thing(kind, "migrate", annotations={"helm.sh/hook": events, **annotations})


def steps(
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    **other: Any,
) -> tuple[str, ...]:
    given = {"from_version": "1.0.0", "to_version": "2.0.0", "annotations": {}, **other}
    return irreversible_steps(before or [], after or [], namespace="apps", **given)


def test_the_same_objects_are_no_step() -> None:
    objects = [thing("StatefulSet", spec={"serviceName": "a"}), thing("PersistentVolumeClaim")]
    assert steps(objects, objects) == ()


# Hooks


def test_jobs_and_pods_that_run_on_an_upgrade_count() -> None:
    found = steps(after=[hook("Job", "pre-install, pre-upgrade"), hook("Pod", "post-upgrade")])
    assert found == (
        "Job/migrate runs as a pre-upgrade hook",
        "Pod/migrate runs as a post-upgrade hook",
    )


@pytest.mark.parametrize(
    "harmless",
    [
        hook("Job", "post-install"),
        hook("Job", "test"),
        hook("ConfigMap", "pre-upgrade"),
        hook("Job", "pre-upgrade", **{"helmops.dev/reversible": "true"}),
    ],
)
def test_other_hooks_do_not(harmless: dict[str, Any]) -> None:
    assert steps(after=[harmless]) == ()


# Objects that go, or change for good


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "CustomResourceDefinition", "Namespace"])
def test_what_goes_with_all_that_is_in_it(kind: str) -> None:
    (found,) = steps([thing(kind)])
    assert found.startswith(f"{kind}/db is deleted")
    kept = thing(kind, annotations={"helm.sh/resource-policy": "keep"})
    assert steps([kept]) == ()


def test_a_stateful_set_that_takes_its_volumes_along() -> None:
    spec = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}
    assert steps([thing("StatefulSet", spec=spec)]) == (
        "StatefulSet/db is deleted, and its volumes with it",
    )
    assert steps([thing("StatefulSet", spec={})]) == ()
    assert steps([thing("Deployment")]) == ()


def test_fields_that_only_a_new_object_can_have() -> None:
    before = thing("StatefulSet", spec={"volumeClaimTemplates": [{"a": 1}], "replicas": 1})
    after = thing("StatefulSet", spec={"volumeClaimTemplates": [{"a": 2}], "replicas": 2})
    assert steps([before], [after]) == (
        "StatefulSet/db: spec.volumeClaimTemplates changes, which only a new object can have",
    )


@pytest.mark.parametrize(
    ("before", "after", "is_step"),
    [("1Gi", "2Gi", True), ("1Gi", "1024Mi", False), ("2Gi", "1Gi", False), ("x", "1Gi", False)],
)
def test_a_volume_that_grows_cannot_shrink_again(before: str, after: str, is_step: bool) -> None:
    def claim(size: str) -> dict[str, Any]:
        return thing("PersistentVolumeClaim", spec={"resources": {"requests": {"storage": size}}})

    assert bool(steps([claim(before)], [claim(after)])) is is_step


def test_objects_of_other_namespaces_are_other_objects() -> None:
    here = thing("PersistentVolumeClaim", metadata={"namespace": "apps"})
    assert steps([thing("PersistentVolumeClaim")], [here]) == ()
    there = thing("PersistentVolumeClaim", metadata={"namespace": "other"})
    assert len(steps([here], [there])) == 1


def crd(*versions: tuple[str, bool, bool], scope: str = "Namespaced") -> dict[str, Any]:
    named = [{"name": n, "served": served, "storage": stored} for n, served, stored in versions]
    return thing(
        "CustomResourceDefinition", "things.example.com", spec={"versions": named, "scope": scope}
    )


def test_a_definition_that_stores_or_serves_otherwise() -> None:
    old = crd(("v1alpha1", True, False), ("v1beta1", True, True))
    new = crd(("v1beta1", True, False), ("v1", True, True), scope="Cluster")
    assert steps([old], [new]) == (
        "CustomResourceDefinition/things.example.com: objects will be stored as v1 instead of "
        "v1beta1",
        "CustomResourceDefinition/things.example.com no longer serves v1alpha1",
        "CustomResourceDefinition/things.example.com: scope changes from Namespaced to Cluster",
    )


# What people say


def test_a_chart_may_say_it_of_its_version() -> None:
    said = {"helmops.dev/irreversible": "drops the old tables"}
    assert steps(annotations=said) == ("chart version 2.0.0: drops the old tables",)
    assert steps(annotations=said, from_version="2.0.0") == ()


@pytest.mark.parametrize(
    ("before", "after", "is_step"),
    [
        ("5.0.9", "5.1.0", True),
        ("5.0.9", "6.0.0", True),
        ("5.1.0", "5.2.0", False),
        ("5.0.0", "5.0.9", False),
        ("5.0.9", "5.1.0-rc.1", False),
        ("5.0.9", "5.2.0-rc.1", True),
        ("latest", "5.1.0", True),
    ],
)
def test_a_rule_counts_for_the_step_into_its_range(before: str, after: str, is_step: bool) -> None:
    rule = Barrier(version=">=5.1.0", reason="a major migration")
    found = steps(barriers=[rule], from_version=before, to_version=after)
    assert found == ((">=5.1.0: a major migration",) if is_step else ())


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "a", "annotations": None}},
        {"kind": "StatefulSet", "metadata": {"name": "a"}, "spec": None},
        {"kind": "CustomResourceDefinition", "metadata": {"name": "a"}, "spec": {"versions": None}},
    ],
)
def test_odd_objects_are_looked_at_without_harm(odd: dict[str, Any]) -> None:
    assert steps([odd], [odd]) == ()
