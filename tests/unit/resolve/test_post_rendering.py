from __future__ import annotations

import json
from typing import Any

import pytest

from helmops.model.declarations import HelmReleaseSpec
from helmops.model.post_rendering import PostRendering
from helmops.resolve.post_rendering import post_rendering_of

PATCH = {"patch": "- op: remove\n  path: /spec\n", "target": {"kind": "Deployment"}}
IMAGE = {"name": "nginx", "newTag": "2"}


def rendering(helm_major: int = 4, **spec: Any) -> PostRendering | None:
    chart = {"spec": {"chart": "app", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}}
    whole = HelmReleaseSpec.model_validate({"interval": "1h", "chart": chart, **spec})
    return post_rendering_of(whole, helm_major=helm_major)


def kustomize(**fields: Any) -> dict[str, Any]:
    return {"kustomize": fields}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"postRenderers": []},
        {"postRenderers": [{}, kustomize()]},
        {"commonMetadata": {}},
        {"commonMetadata": {"labels": {}}},
        {"postRenderStrategy": "separate"},
    ],
    ids=str,
)
def test_nothing_to_do_is_no_post_rendering(spec: dict[str, Any]) -> None:
    assert rendering(**spec) is None


def test_steps_are_in_the_order_of_the_declaration_and_metadata_is_last() -> None:
    found = rendering(
        postRenderers=[kustomize(patches=[PATCH]), {}, kustomize(images=[IMAGE])],
        commonMetadata={"labels": {"team": "a"}, "annotations": {"b": "1"}},
    )
    assert found is not None
    assert [step.name for step in found.steps] == [
        "spec.postRenderers[0]",
        "spec.postRenderers[2]",
        "spec.commonMetadata",
    ]
    first, second, last = (step.kustomization for step in found.steps)
    assert first["patches"] == [PATCH]
    assert second["images"] == [IMAGE]
    assert [json.loads(each)["kind"] for each in last["transformers"]] == [
        "LabelTransformer",
        "AnnotationsTransformer",
    ]


def test_common_metadata_is_put_on_metadata_alone() -> None:
    found = rendering(commonMetadata={"labels": {"team": "a"}})
    assert found is not None
    (labels,) = found.steps[0].kustomization["transformers"]
    assert json.loads(labels)["fieldSpecs"] == [{"path": "metadata/labels", "create": True}]
    assert json.loads(labels)["labels"] == {"team": "a"}


@pytest.mark.parametrize(
    ("helm_major", "asked", "hooks", "is_default"),
    [
        (4, None, "combined", True),
        (3, None, "nohooks", True),
        (4, "separate", "separate", False),
        (3, "nohooks", "nohooks", False),
    ],
)
def test_hooks_go_through_as_asked_or_as_this_helm_can(
    helm_major: int, asked: str | None, hooks: str, is_default: bool
) -> None:
    strategy = {"postRenderStrategy": asked} if asked else {}
    found = rendering(helm_major, commonMetadata={"labels": {"a": "b"}}, **strategy)
    assert found is not None
    assert (found.hooks, found.is_default) == (hooks, is_default)


def digest(helm_major: int = 4, **spec: Any) -> str:
    found = rendering(helm_major, **spec)
    assert found is not None
    return found.digest


def test_the_digest_changes_with_what_is_asked_for_and_with_nothing_else() -> None:
    one = digest(postRenderers=[kustomize(images=[IMAGE])])
    assert one == digest(3, postRenderers=[{}, kustomize(images=[IMAGE])])
    others = [
        digest(postRenderers=[kustomize(images=[{**IMAGE, "newTag": "3"}])]),
        digest(postRenderers=[kustomize(images=[IMAGE], patches=[PATCH])]),
        digest(postRenderers=[kustomize(images=[IMAGE])], postRenderStrategy="combined"),
        digest(postRenderers=[kustomize(images=[IMAGE])], commonMetadata={"labels": {"a": "b"}}),
    ]
    assert len({one, *others}) == 5


def test_the_order_of_steps_counts() -> None:
    one, other = kustomize(images=[IMAGE]), kustomize(patches=[PATCH])
    assert digest(postRenderers=[one, other]) != digest(postRenderers=[other, one])


def test_patches_are_not_in_what_is_logged() -> None:
    found = rendering(postRenderers=[kustomize(patches=[PATCH])])
    assert "remove" not in repr(found)
