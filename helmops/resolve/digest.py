"""Digests that tell whether two things are the same: values, plans, declarations, revisions.

Each is the SHA-256, in lower-case hex, of canonical JSON. Canonical means: keys sorted, no spaces,
and numbers as the 64-bit floats that Helm and Kubernetes make of them, so that 1 and 1.0 are the
same, and values compare equal to what Helm stored of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def config_digest(values: Mapping[str, Any] | None) -> str:
    """Of user-supplied values, before or after Helm stored them. Nulls count: they delete."""
    return _digest(values or {})


def declaration_digest(spec: Mapping[str, Any]) -> str:
    """Of a declaration's `spec`, to tell whether a person changed it."""
    return _digest(spec)


def post_render_digest(kustomizations: Sequence[Mapping[str, Any]], hooks: str) -> str:
    """Of the steps between rendering and applying, in order, and which hooks go through them."""
    return _digest({"steps": list(kustomizations), "hooks": hooks})


def plan_digest(
    *,
    chart_name: str,
    chart_version: str,
    values: Mapping[str, Any],
    objects: Iterable[Mapping[str, Any]],
) -> str:
    """Of what a pass would make of a release: its chart, its values, and the rendered objects in
    whatever order.
    """
    return _digest(
        {
            "chart": [chart_name, chart_version],
            "config": values,
            "objects": sorted(_canonical(item) for item in objects),
        }
    )


def revision_digest(
    chart: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    manifest: str,
    hooks: Sequence[Mapping[str, Any]] | None,
) -> str:
    """Of one stored revision: what it is, not what became of it.

    Takes the parts of a decoded release as Helm keeps them. Counted are the chart (metadata,
    templates, default values, files, schema), the user's values, the manifest and the hooks as
    templates. Left out are status, labels, times and the hooks' last runs, which helm rewrites.
    Helm 3 and 4 differ in which empty fields they write and in times of files; neither counts.
    """
    return _digest(
        {
            "chart": {
                "metadata": _without_empty(chart.get("metadata")),
                "templates": _files(chart.get("templates")),
                "values": _without_nulls(chart.get("values") or {}),
                "files": _files(chart.get("files")),
                "schema": chart.get("schema") or "",
            },
            "config": config or {},
            "manifest": manifest,
            "hooks": sorted(_canonical(_hook_template(hook)) for hook in hooks or ()),
        }
    )


#: What identifies a hook. `weight` 0 is left out by Helm where it is the default. Its policies are
#: not here: helm writes the default ones into the record when it runs a hook that names none, and
#: those that are named are in the manifest's annotations.
_HOOK_FIELDS = ("name", "kind", "path", "manifest", "events", "weight")


def _hook_template(hook: Mapping[str, Any]) -> Any:
    return _without_empty({name: hook.get(name) for name in _HOOK_FIELDS})


def _files(files: Sequence[Mapping[str, Any]] | None) -> list[list[str]]:
    """Names and contents (base64, as stored), sorted: their order in an archive means nothing."""
    return sorted([file.get("name") or "", file.get("data") or ""] for file in files or ())


def _without_empty(value: Any) -> Any:
    """Without what Go leaves out of JSON or writes as null: null, false, 0, "", [] and {}."""
    if isinstance(value, Mapping):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, False, 0, "", [], {})}
    if isinstance(value, list | tuple):
        return [_without_empty(item) for item in value]
    return value


def _without_nulls(value: Any) -> Any:
    """A default of null is no default."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(
        _with_plain_numbers(value),
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def _with_plain_numbers(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_numbers(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no part of JSON")


def _number(value: int | float) -> int | float:
    try:
        number = float(value)
    except OverflowError:
        return value  # no float has it; Helm refuses such a number anyway
    if math.isfinite(number) and number.is_integer():
        return int(number)
    return number
