"""Values: how layers of them become one, as Helm and Flux do it.

Values files go to helm as they are. What is here is for what helmops itself has to know: what a
release's values come to, whether they changed, and which value wins.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helmops.errors import ValuesError
from helmops.resolve.strvals import parse_set, set_value
from helmops.resolve.yaml11 import parse_values

__all__ = [
    "TargetValue",
    "ValuesError",
    "coalesce_values",
    "compose_values",
    "merge_values",
    "parse_set",
    "parse_values",
    "set_value",
    "values_for_helm",
]


@dataclass(frozen=True, slots=True)
class TargetValue:
    """A value for one path. `where` names the reference it comes from; the value is not shown."""

    path: str
    value: str = field(repr=False)
    literal: bool = False
    where: str = ""


def merge_values(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Layers over one another, the last on top, as helm merges `-f a -f b`.

    Mappings merge, all else replaces; a null replaces too and stays, for only against the chart's
    defaults does it delete (`coalesce_values`). The layers are not changed, but parts of them may
    be parts of the result.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge_two(merged, layer)
    return merged


def _merge_two(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        present = merged.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            merged[key] = _merge_two(present, value)
        else:
            merged[key] = value
    return merged


def compose_values(
    references: Iterable[Mapping[str, Any]],
    inline: Mapping[str, Any],
    targets: Sequence[TargetValue] = (),
) -> dict[str, Any]:
    """A release's values by Flux's order: `valuesFrom` one over another, `values` over them, and
    over everything, in their order, those with a `targetPath`. Raises ValuesError.

    That a `targetPath` wins over `values` is what Flux documents. Its code (chartutil 1.35)
    merges `values` once more at the end, so that there it depends on how deep the path is.
    """
    values = merge_values([*references, inline])
    for target in targets:
        values = set_value(
            values, target.path, target.value, literal=target.literal, where=target.where
        )
    return values


def coalesce_values(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates of a chart see: its defaults under the user's values, as Helm 4.3.1.

    Null deletes a default; a null for which there is no default stays; nulls among the defaults
    vanish. Where one side has a mapping and the other has not, the user's wins. Charts with
    dependencies need more (`helm template` tells). Helm 3.19 keeps nulls of the defaults.
    """
    seen: dict[str, Any] = copy.deepcopy(dict(values))
    for key, default in defaults.items():
        if key in seen and seen[key] is None:
            del seen[key]  # also where the default is null itself; inside of mappings it stays
        else:
            _coalesce(_without_nulls({key: default}), seen)
    return seen


def _coalesce(defaults: Mapping[str, Any], values: dict[str, Any]) -> None:
    for key, default in defaults.items():
        if key not in values:
            values[key] = default
        elif values[key] is None:
            del values[key]
        elif isinstance(values[key], dict) and isinstance(default, Mapping):
            _coalesce(default, values[key])


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else copy.deepcopy(value)
        for key, value in values.items()
        if value is not None
    }


#: Characters that JSON lets stand and YAML does not, or takes as the end of a line.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def values_for_helm(values: Mapping[str, Any]) -> bytes:
    """A values file with exactly these values, for `-f`.

    As JSON, in which nothing can be taken for something else (`y`, `0755`, `1:30`); characters
    that YAML refuses are escaped. Raises ValuesError for what JSON does not have.
    """
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    except (TypeError, ValueError, RecursionError):
        raise ValuesError("values hold something that JSON does not have") from None
    escaped = _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return (escaped + "\n").encode("utf-8", "replace")
