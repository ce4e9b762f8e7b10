"""What becomes of a chart's objects between rendering and applying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: Which hooks go through the steps: none, all together with the other objects, or by themselves.
HookStrategy = Literal["nohooks", "combined", "separate"]


@dataclass(frozen=True, slots=True)
class PostRenderStep:
    """One run of kustomize. `name` is the field that it comes from, for people.

    `kustomization` is the Kustomization without its resources. May hold secret values.
    """

    name: str
    kustomization: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PostRendering:
    """All steps, in order. `digest` is the hex SHA-256 of what they say; another one is a change of
    the release. `is_default` says that nobody asked for this `hooks` strategy by name.
    """

    steps: tuple[PostRenderStep, ...]
    hooks: HookStrategy
    digest: str
    is_default: bool = False
