"""What a Job is made of; how it is run is in test_job_hook.py and test_job_check.py."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from helmops.checks.job_run import JobOrder, job_manifest, variable
from helmops.model.releases import ReleaseId

WEB = ReleaseId("shop", "web")
FACTS = {"release": "web", "namespace": "shop", "revision": "7", "reason": "cost $(A)"}
POD: dict[str, Any] = {"spec": {"containers": [{"name": "main", "image": "backup:1"}]}}


def order(template: dict[str, Any] | None = None, seconds: float = 90, **more: Any) -> JobOrder:
    given: dict[str, Any] = {
        "purpose": "hook",
        "name": "backup",
        "template": template or {"template": POD},
        "timeout": timedelta(seconds=seconds),
        "release": WEB,
        "facts": FACTS,
        "identity": ["declared"],
        "annotations": {"more": "of it"},
    }
    return JobOrder(**(given | more))


def manifest(*arguments: Any, **more: Any) -> dict[str, Any]:
    made = job_manifest(order(*arguments, **more))
    assert made is not None
    return made


@pytest.mark.parametrize("template", [{"template": POD}, POD])
def test_what_a_template_leaves_out_is_filled_in(template: dict[str, Any]) -> None:
    spec = manifest(template)["spec"]

    assert spec["backoffLimit"] == 0
    assert spec["activeDeadlineSeconds"] == 90
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_what_a_template_says_stays() -> None:
    pod_spec = POD["spec"] | {"restartPolicy": "OnFailure"}
    given = {
        "template": {"spec": pod_spec},
        "backoffLimit": 2,
        "activeDeadlineSeconds": 30,
        "ttlSecondsAfterFinished": 5,
    }

    spec = manifest(given)["spec"]

    assert spec["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (2, 30)
    assert spec["ttlSecondsAfterFinished"] == 5


def test_its_deadline_is_never_later_than_the_hooks() -> None:
    assert (
        manifest({"template": POD, "activeDeadlineSeconds": 900})["spec"]["activeDeadlineSeconds"]
        == 90
    )
    assert manifest(seconds=0.5)["spec"]["activeDeadlineSeconds"] == 1


def test_containers_get_the_facts() -> None:
    given = copy.deepcopy(POD)
    given["spec"]["containers"][0]["env"] = [{"name": "HELMOPS_REVISION", "value": "mine"}]

    [container] = manifest(given)["spec"]["template"]["spec"]["containers"]

    assert {one["name"]: one["value"] for one in container["env"]} == {
        "HELMOPS_REVISION": "mine",
        "HELMOPS_RELEASE": "web",
        "HELMOPS_NAMESPACE": "shop",
        "HELMOPS_REASON": "cost $$(A)",
    }


def test_the_declaration_is_not_changed() -> None:
    declared = order()
    before = copy.deepcopy(declared)

    job_manifest(declared)

    assert declared == before


def test_it_says_whose_it_is() -> None:
    metadata = manifest(name="Back up, then page! " + "x" * 80)["metadata"]

    assert metadata["generateName"] == "helmops-hook-"
    assert metadata["namespace"] == "shop"
    assert metadata["annotations"]["helmops.dev/owner"] == "shop/web"
    assert metadata["annotations"]["more"] == "of it"
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "helmops"
    assert all(len(value) <= 63 for value in metadata["labels"].values())


@pytest.mark.parametrize("change", [{"identity": ["other"]}, {"facts": {"revision": "8"}}])
def test_another_order_is_another_run(change: dict[str, Any]) -> None:
    def run(**more: Any) -> str:
        return str(manifest(**more)["metadata"]["labels"]["helmops.dev/hook-run"])

    assert run() == run()
    assert run() != run(**change)


@pytest.mark.parametrize("template", [{"image": "x"}, {"template": {}}, {"spec": {"a": 1}}])
def test_a_template_without_containers_makes_none(template: dict[str, Any]) -> None:
    assert job_manifest(order(template)) is None


@pytest.mark.parametrize(
    ("fact", "name"), [("revision", "HELMOPS_REVISION"), ("app-version", "HELMOPS_APP_VERSION")]
)
def test_a_fact_as_a_variable(fact: str, name: str) -> None:
    assert variable(fact) == name
