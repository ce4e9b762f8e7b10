"""From `postRenderers` and `commonMetadata` to steps of kustomize."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from helmops.model.declarations import HelmReleaseSpec
from helmops.model.declarations.helm_release import CommonMetadata, KustomizePostRenderer
from helmops.model.post_rendering import HookStrategy, PostRendering, PostRenderStep
from helmops.resolve.digest import post_render_digest


def post_rendering_of(spec: HelmReleaseSpec, *, helm_major: int) -> PostRendering | None:
    """The steps of a release, or None where there are none.

    As in Flux: each of `postRenderers` in order, then `commonMetadata`, whose labels and
    annotations win over those that an object has. Hooks go through them as `postRenderStrategy`
    says; absent means `combined`, and with helm 3, which gives post-renderers no hooks, `nohooks`.
    """
    steps = [
        PostRenderStep(f"spec.postRenderers[{position}]", _kustomization(renderer.kustomize))
        for position, renderer in enumerate(spec.post_renderers)
        if renderer.kustomize is not None
        and (renderer.kustomize.patches or renderer.kustomize.images)
    ]
    common = _transformers(spec.common_metadata)
    if common:
        steps.append(PostRenderStep("spec.commonMetadata", _with_header({"transformers": common})))
    if not steps:
        return None
    asked = spec.post_render_strategy
    hooks: HookStrategy = asked or ("nohooks" if helm_major < 4 else "combined")
    # What was asked for: another helm is no change of the release.
    digest = post_render_digest([step.kustomization for step in steps], asked or "")
    return PostRendering(tuple(steps), hooks, digest, is_default=asked is None)


def _with_header(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "sortOptions": {"order": "fifo"},
        **content,
    }


def _kustomization(renderer: KustomizePostRenderer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if renderer.patches:
        content["patches"] = [patch.manifest() for patch in renderer.patches]
    if renderer.images:
        content["images"] = [image.manifest() for image in renderer.images]
    return _with_header(content)


def _transformers(common: CommonMetadata | None) -> list[str]:
    """Kustomize's own `labels` and `commonAnnotations` go into pod templates and selectors too;
    Flux means `metadata` alone.
    """
    if common is None:
        return []
    return [
        json.dumps(
            {
                "apiVersion": "builtin",
                "kind": kind,
                "metadata": {"name": field},
                field: dict(texts),
                "fieldSpecs": [{"path": f"metadata/{field}", "create": True}],
            },
            sort_keys=True,
        )
        for kind, field, texts in (
            ("LabelTransformer", "labels", common.labels),
            ("AnnotationsTransformer", "annotations", common.annotations),
        )
        if texts
    ]
