"""Whether taking over a running release would change anything: two renderings, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: So many differences tell enough; a person looks at the rest with `helmops plan`.
_MOST = 20

_Identity = tuple[str, str, str, str]


def differences(
    stored: Sequence[Mapping[str, Any]],
    rendered: Sequence[Mapping[str, Any]],
    rendered_again: Sequence[Mapping[str, Any]],
    *,
    namespace: str,
) -> tuple[str, ...]:
    """What applying `rendered` in place of `stored` would change, readable; empty when nothing.

    Fields that differ between two renderings of the same chart (`randAlphaNum`, `genCA`, `now`) are
    named as such: an upgrade would change them each time. Values of Secrets are never shown.
    """
    before = {_identity(o, namespace): o for o in stored}
    after = {_identity(o, namespace): o for o in rendered}
    again = {_identity(o, namespace): o for o in rendered_again}
    found = [f"adds {_readable(i)}" for i in sorted(after.keys() - before.keys())]
    found += [f"removes {_readable(i)}" for i in sorted(before.keys() - after.keys())]
    for identity in sorted(before.keys() & after.keys()):
        unstable = set(_changed_fields(after[identity], again.get(identity, {})))
        for field in _changed_fields(before[identity], after[identity]):
            suffix = " (rendered anew each time)" if field in unstable else ""
            found.append(f"changes {_readable(identity)} {field}{suffix}")
    if len(found) > _MOST:
        return (*found[:_MOST], f"and {len(found) - _MOST} more")
    return tuple(found)


def _identity(obj: Mapping[str, Any], namespace: str) -> _Identity:
    metadata = obj.get("metadata") or {}
    return (
        str(obj.get("apiVersion", "")),
        str(obj.get("kind", "")),
        str(metadata.get("namespace") or namespace),
        str(metadata.get("name", "")),
    )


def _readable(identity: _Identity) -> str:
    return f"{identity[1]}/{identity[3]}"


def _changed_fields(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}, key=str):
            where = f"{path}.{key}" if path else str(key)
            yield from _changed_fields(before.get(key), after.get(key), where)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changed_fields(one, other, f"{path}[{index}]")
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        yield path  # 1 and true are equal for Python, not for an API server
