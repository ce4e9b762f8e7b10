"""What is different between two revisions' manifests, object by object. Contents of Secrets are
masked before anything is compared in sight.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from helmops.health.fields import dig, text
from helmops.model.redaction import MASK

#: Lines of an object beyond which only the fact of a change is told: comparing takes time.
_MOST_LINES = 3000
_CONTEXT = 3
_KINDS_OF_CONTENT = ("data", "stringData")

Place = tuple[str, str, str, str]


def manifest_diff(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]], namespace: str
) -> str:
    """A unified diff; empty where both say the same. Objects without a namespace are in
    `namespace`.
    """
    old, new = _by_place(before, namespace), _by_place(after, namespace)
    parts = [
        part
        for place in sorted(old.keys() | new.keys())
        if (part := _of_one(place, old.get(place), new.get(place)))
    ]
    return "\n".join(parts)


def _of_one(place: Place, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    if old == new:
        return ""
    _, kind, namespace, name = place
    shown = f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}"
    if new is None:
        return f"- {shown} (removed)"
    if old is None:
        return f"+ {shown} (added)\n" + "\n".join(
            f"+{line}" for line in _lines(*_masked(None, new))
        )
    before, after = _masked(old, new)
    left, right = _lines(before), _lines(after)
    if len(left) + len(right) > _MOST_LINES:
        return f"~ {shown} (changed; too large to be compared here)"
    lines = list(difflib.unified_diff(left, right, lineterm="", n=_CONTEXT))[2:]
    return "\n".join([f"~ {shown}", *lines])


def _masked(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Both without the contents of Secrets; of a value that changed, only that it did."""
    given = [one for one in (old, new) if one is not None]
    if text(new, "kind") != "Secret":
        return tuple(given)
    masked = [dict(one) for one in given]
    for field in _KINDS_OF_CONTENT:
        before = dig(old, field)
        for one, which in zip(masked, ("before", "now"), strict=False):
            content = one.get(field)
            if not isinstance(content, Mapping):
                continue
            one[field] = {
                key: MASK
                if isinstance(before, Mapping) and before.get(key) == dig(new, field, key)
                else f"{MASK} ({which if old is not None else 'new'})"
                for key in content
            }
    return tuple(masked)


def _lines(one: Mapping[str, Any]) -> list[str]:
    return yaml.dump(
        one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
    ).splitlines()


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines as blocks, so that a changed line is one changed line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _by_place(
    objects: Iterable[Mapping[str, Any]], namespace: str
) -> dict[Place, Mapping[str, Any]]:
    """By group, kind, namespace and name: another version of the same group is the same object."""
    found = {}
    for one in objects:
        group = text(one, "apiVersion").rpartition("/")[0]
        its = text(one, "metadata", "namespace") or namespace
        found[group, text(one, "kind"), its, text(one, "metadata", "name")] = one
    return found
