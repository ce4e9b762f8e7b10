"""Which parts of an upgrade a rollback cannot undo.

`helm rollback` applies an older manifest; it takes back neither what a Job did to data, nor a
deleted volume, nor objects that were stored in a new version of their kind. What is found here is
remembered with the revision, so that a failure after such a step holds the release for a person
(`remediation.irreversible`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from helmops.errors import VersionError
from helmops.model.declarations import Barrier
from helmops.resolve.constraint import Constraint

#: On a chart (Chart.yaml): going to this version cannot be undone; the text says why.
IRREVERSIBLE = "helmops.dev/irreversible"
#: On a hook: what it does can be undone, or harms nobody.
REVERSIBLE = "helmops.dev/reversible"

_HOOK = "helm.sh/hook"
_POLICY = "helm.sh/resource-policy"
_UPGRADE_EVENTS = frozenset({"pre-upgrade", "post-upgrade"})
_WORKING_HOOKS = frozenset({"Job", "Pod"})

#: Fields that Kubernetes refuses to change: a chart gets past them only by making the object anew.
_IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "StatefulSet": ("volumeClaimTemplates", "serviceName", "selector", "podManagementPolicy"),
    "Deployment": ("selector",),
    "DaemonSet": ("selector",),
    "PersistentVolumeClaim": ("storageClassName", "accessModes", "volumeMode", "selector"),
}

#: (kind, namespace, name).
_Key = tuple[str, str, str]


def irreversible_steps(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    *,
    from_version: str,
    to_version: str,
    annotations: Mapping[str, str],
    barriers: Sequence[Barrier] = (),
    namespace: str = "",
) -> tuple[str, ...]:
    """What a rollback could not undo of a step, one sentence each; empty when nothing is known.

    `before` is the manifest that runs, `after` what would be applied, hooks among it; objects
    without a namespace are in `namespace`. `annotations` are the new chart's, `barriers` the
    user's rules. Computational only.
    """
    found = [*_of_barriers(barriers, from_version, to_version)]
    reason = annotations.get(IRREVERSIBLE, "")
    if reason and from_version != to_version:
        found.append(f"chart version {to_version}: {reason}")
    hooks = [o for o in after if _annotation(o, _HOOK)]
    found += _of_hooks(hooks)
    old = _by_key((o for o in before if not _annotation(o, _HOOK)), namespace)
    new = _by_key((o for o in after if not _annotation(o, _HOOK)), namespace)
    for key, was in old.items():
        now = new.get(key)
        found += _of_removed(key, was) if now is None else _of_changed(key, was, now)
    return tuple(dict.fromkeys(found))


def _of_barriers(barriers: Iterable[Barrier], from_version: str, to_version: str) -> Iterator[str]:
    for barrier in barriers:
        constraint = Constraint.parse(barrier.version)
        if _is_in(constraint, to_version) and not _is_in(constraint, from_version):
            yield f"{barrier.version}: {barrier.reason}"


def _is_in(constraint: Constraint, version: str) -> bool:
    try:
        return constraint.matches(version, include_prereleases=True)
    except VersionError:
        return False


def _of_hooks(hooks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for hook in hooks:
        events = {e.strip() for e in _annotation(hook, _HOOK).split(",")} & _UPGRADE_EVENTS
        if not events or hook.get("kind") not in _WORKING_HOOKS:
            continue
        if _annotation(hook, REVERSIBLE).lower() == "true":
            continue
        name = (hook.get("metadata") or {}).get("name", "?")
        yield f"{hook['kind']}/{name} runs as a {' and '.join(sorted(events))} hook"


def _of_removed(key: _Key, was: Mapping[str, Any]) -> Iterator[str]:
    kind, _, name = key
    if _annotation(was, _POLICY).strip().lower() == "keep":
        return
    match kind:
        case "PersistentVolumeClaim":
            yield f"{kind}/{name} is deleted, and its data may go with it"
        case "CustomResourceDefinition":
            yield f"{kind}/{name} is deleted, and all objects of that kind with it"
        case "Namespace":
            yield f"{kind}/{name} is deleted, with all that is in it"
        case "StatefulSet":
            policy = _spec(was).get("persistentVolumeClaimRetentionPolicy") or {}
            if policy.get("whenDeleted") == "Delete":
                yield f"{kind}/{name} is deleted, and its volumes with it"


def _of_changed(key: _Key, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    kind, _, name = key
    if kind == "CustomResourceDefinition":
        yield from _of_definition(name, _spec(was), _spec(now))
        return
    for field in _IMMUTABLE.get(kind, ()):
        if field in _spec(was) and field in _spec(now) and _spec(was)[field] != _spec(now)[field]:
            yield f"{kind}/{name}: spec.{field} changes, which only a new object can have"
    if kind == "PersistentVolumeClaim":
        before, after = _requested(was), _requested(now)
        if before is not None and after is not None and after > before:
            yield f"{kind}/{name} grows, and cannot shrink again"


def _of_definition(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    what = f"CustomResourceDefinition/{name}"
    stored, will_be = _stored_version(was), _stored_version(now)
    if stored != will_be:
        yield f"{what}: objects will be stored as {will_be} instead of {stored}"
    gone = sorted(_served(was) - _served(now))
    if gone:
        yield f"{what} no longer serves {', '.join(gone)}"
    if was.get("scope") != now.get("scope"):
        yield f"{what}: scope changes from {was.get('scope')} to {now.get('scope')}"


def _stored_version(spec: Mapping[str, Any]) -> str:
    versions = spec.get("versions") or []
    return next((str(v.get("name")) for v in versions if v.get("storage")), "nothing")


def _served(spec: Mapping[str, Any]) -> set[str]:
    return {str(v.get("name")) for v in spec.get("versions") or [] if v.get("served")}


def _requested(claim: Mapping[str, Any]) -> Decimal | None:
    from kubernetes.utils.quantity import parse_quantity  # brings the whole client: half a second

    requests = (_spec(claim).get("resources") or {}).get("requests") or {}
    try:
        return Decimal(parse_quantity(requests.get("storage")))
    except (ValueError, TypeError):
        return None


def _by_key(objects: Iterable[Mapping[str, Any]], namespace: str) -> dict[_Key, Mapping[str, Any]]:
    found: dict[_Key, Mapping[str, Any]] = {}
    for each in objects:
        metadata = each.get("metadata") or {}
        place = str(metadata.get("namespace") or namespace)
        found[str(each.get("kind")), place, str(metadata.get("name"))] = each
    return found


def _spec(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = thing.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _annotation(thing: Mapping[str, Any], name: str) -> str:
    annotations = (thing.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(name) or "")
