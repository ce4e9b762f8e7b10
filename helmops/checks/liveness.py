"""How releases are doing while they run, told by watches: the `Liveness` port.

While a release is inside its watch window, every object of its manifest that can be unready is
watched, and the pods of its namespaces. After that its workloads' own status is enough, which three
watches show for all releases together. Nothing is asked of the API server for it, and nothing
happens here as long as nothing changes there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from helmops.checks.surroundings import Clock
from helmops.cluster.object_watches import ObjectWatches, Place, Scope
from helmops.cluster.resources import Resource
from helmops.errors import AccessDenied, ClusterError, HelmopsError, ObjectNotFound
from helmops.health import CustomRules
from helmops.health.fields import Object, dig, group_of, items, text
from helmops.health.liveness import LiveFold
from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import LiveHealth, ObjectRef
from helmops.model.records import Proof, Snapshot
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

#: Told of a release whose `bad` changed, or which is (not) seen any more; and why, readable.
OnChange = Callable[[ReleaseId, str], None]

#: Objects change in bursts; they are looked at together.
_AT_MOST_EVERY = 0.2
#: After an action of helm's, until the watches have caught up with it.
_CATCH_UP = timedelta(seconds=1)
#: A watch that breaks is back in a moment, mostly.
_LOST_FOR = timedelta(seconds=10)
_FOREVER = 3600.0

_RELEASE_NAME = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"
#: helm puts this on every object that it makes, and not on the pods of these.
_BY_HELM = "app.kubernetes.io/managed-by=Helm"
_WORKLOADS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"))
_OTHERS_WITH_RULES = frozenset(
    {
        ("", "PersistentVolumeClaim"),
        ("", "Pod"),
        ("apps", "ReplicaSet"),
        ("batch", "Job"),
    }
)
#: Groups of Kubernetes itself: a kind of theirs without rules of ours is ready by being there.
_BUILT_IN = frozenset({"", "apps", "autoscaling", "batch", "extensions", "policy"})


class Cluster(Protocol):
    """The part of `helmops.cluster.api.Api` that is needed."""

    async def resource_for(self, api_version: str, kind: str) -> Resource: ...


class Manifests(Protocol):
    """The part of `ReleaseStorage` that is needed."""

    async def objects(self, release: ReleaseId, revision: int) -> tuple[dict[str, Any], ...]: ...


@dataclass(slots=True)
class _Followed:
    """One release that is looked after."""

    key: tuple[object, ...]
    fold: LiveFold
    #: The watches may not have caught up with helm before that.
    not_before: datetime
    in_window: bool = False
    scopes: tuple[Scope, ...] = ()
    #: In the window: the objects of the manifest, and the scope that shows each. Outside: None,
    #: and those count that say that they are of the release.
    objects: Mapping[ObjectRef, Scope] | None = None
    was_live: bool = False
    lost_at: datetime | None = None
    look_at: datetime | None = None


class LiveReleases:
    """Follows releases from `follow` to `unfollow`; `run` does the looking.

    `is_everywhere` says whether one watch may see all namespaces; it is asked at each `follow`.
    """

    def __init__(
        self,
        watches: ObjectWatches,
        cluster: Cluster,
        manifests: Manifests,
        clock: Clock,
        on_change: OnChange,
        *,
        is_everywhere: Callable[[], bool] = lambda: False,
    ) -> None:
        self._watches = watches
        self._cluster = cluster
        self._manifests = manifests
        self._clock = clock
        self._on_change = on_change
        self._is_everywhere = is_everywhere
        self._followed: dict[ReleaseId, _Followed] = {}
        #: How many actions of helm's run on a release.
        self._busy: Counter[ReleaseId] = Counter()
        self._users: dict[Scope, set[ReleaseId]] = {}
        #: Workloads by the release that helm says they are of.
        self._workloads: dict[ReleaseId, dict[tuple[Scope, Place], None]] = {}
        self._dirty: set[ReleaseId] = set()
        self._woken = asyncio.Event()
        self._told_refusals: set[Scope] = set()

    def of(self, release: ReleaseId) -> LiveHealth | None:
        """How a release is doing, None where nobody looks after it."""
        followed = self._followed.get(release)
        if followed is None:
            return None
        if release in self._busy or not self._is_live(followed):
            return followed.fold.is_blind()
        return followed.fold.health

    async def follow(
        self,
        release: ReleaseId,
        snapshot: Snapshot,
        *,
        expressions: Sequence[HealthCheckExpr] = (),
        max_restarts: int,
    ) -> None:
        """Look after this revision of a release, in place of the one before. Cheap where nothing
        changed. What cannot be watched is said once, and `of` is not live then.
        """
        in_window = snapshot.watched is Proof.PENDING
        key = (
            *(snapshot.revision, snapshot.digest, in_window),
            *(max_restarts, tuple(expressions), self._is_everywhere()),
        )
        before = self._followed.get(release)
        if before is not None and before.key == key:
            return
        try:
            rules = CustomRules(expressions)
            objects = (
                await self._objects_of(release, snapshot.revision, rules) if in_window else None
            )
        except HelmopsError as error:
            # Without the manifest nobody knows what to look at; the next pass tries again.
            log.debug("cannot look after %s: %s", release, error)
            self.unfollow(release)
            return
        fold = LiveFold(rules, max_restarts, snapshot.last_deployed)
        if before is not None:
            fold.health = _unknown_after(before.fold)
        scopes = self._scopes_of(release, objects)
        catch_up = self._clock.now() + _CATCH_UP
        followed = _Followed(
            key,
            fold,
            catch_up,
            in_window=in_window,
            scopes=scopes,
            objects=objects,
            look_at=catch_up,
        )
        self._followed[release] = followed
        for scope in scopes:
            self._use(scope, release)
        if before is not None:
            self._drop(release, set(before.scopes) - set(scopes))
        self._woken.set()

    def unfollow(self, release: ReleaseId) -> None:
        """Look after it no more."""
        followed = self._followed.pop(release, None)
        if followed is not None:
            self._drop(release, followed.scopes)

    @contextmanager
    def changing(self, release: ReleaseId) -> Iterator[None]:
        """Around helm's actions on a release: what is seen meanwhile is helm's doing."""
        self._busy[release] += 1
        try:
            yield
        finally:
            self._busy[release] -= 1
            if not self._busy[release]:
                del self._busy[release]
            followed = self._followed.get(release)
            if followed is not None:
                old = followed.fold
                followed.fold = LiveFold(old.rules, old.max_restarts, old.released_at)
                followed.fold.health = _unknown_after(old)
                followed.look_at = followed.not_before = self._clock.now() + _CATCH_UP
                self._woken.set()

    async def run(self) -> None:
        """Look at what changed, until cancelled."""
        while True:
            await self._something_to_do()
            await self._clock.sleep(_AT_MOST_EVERY)
            self._woken.clear()
            now = self._clock.now()
            dirty, self._dirty = self._dirty, set()
            due = {
                release
                for release, followed in self._followed.items()
                if followed.look_at is not None and followed.look_at <= now
            }
            for release in dirty | due:
                try:
                    self._look(release, now)
                except Exception:
                    # A defect of ours: better looked at every ten seconds than never again.
                    log.exception("cannot tell how %s is doing", release, extra={"action": "watch"})
                    self.unfollow(release)

    async def _something_to_do(self) -> None:
        times = [f.look_at for f in self._followed.values() if f.look_at is not None]
        seconds = _FOREVER
        if times:
            seconds = max((min(times) - self._clock.now()).total_seconds(), 0.0)
        woken = asyncio.ensure_future(self._woken.wait())
        late = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({woken, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            late.cancel()

    # Looking

    def _look(self, release: ReleaseId, now: datetime) -> None:
        followed = self._followed.get(release)
        if followed is None:
            return
        if release in self._busy:
            followed.look_at = None  # comes again when the action has ended
            return
        if now < followed.not_before:
            followed.look_at = followed.not_before
            return
        followed.look_at = None
        is_live = self._is_live(followed)
        if is_live != followed.was_live:
            self._sight_changed(release, followed, is_live, now)
        if not is_live:
            return
        before = followed.fold.health
        health = followed.fold.look(self._seen_of(release, followed), self._pods_of(followed), now)
        followed.look_at = followed.fold.look_again
        if health.version != before.version:
            self._on_change(release, health.bad or "is well again")

    def _sight_changed(
        self, release: ReleaseId, followed: _Followed, is_live: bool, now: datetime
    ) -> None:
        """A watch that is back soon is not worth a word, nor one outside of the watch window."""
        if is_live:
            was_told = followed.lost_at is None
            followed.was_live, followed.lost_at = True, None
            if followed.in_window and was_told:
                self._on_change(release, "is watched")
            return
        if followed.lost_at is None:
            followed.lost_at = now
        since = now - followed.lost_at
        if since < _LOST_FOR:
            followed.look_at = followed.lost_at + _LOST_FOR
            return
        followed.was_live, followed.lost_at = False, None
        if followed.in_window:
            self._on_change(release, "is not seen any more")

    def _is_live(self, followed: _Followed) -> bool:
        return all(map(self._watches.is_live, followed.scopes))

    def _seen_of(
        self, release: ReleaseId, followed: _Followed
    ) -> Iterator[tuple[ObjectRef, Object | None]]:
        if followed.objects is not None:
            for ref, scope in followed.objects.items():
                yield ref, self._watches.objects(scope).get((ref.namespace, ref.name))
            return
        for scope, place in self._workloads.get(release, {}):
            live = self._watches.objects(scope).get(place)
            if live is not None:
                yield ObjectRef(scope.api_version, scope.kind, place[1], place[0]), live

    def _pods_of(self, followed: _Followed) -> Iterator[Object]:
        """The pods that workloads of the manifest made; bare ones are objects of it themselves."""
        owners = {(ref.namespace, ref.kind, ref.name) for ref in followed.objects or ()}
        for scope in followed.scopes:
            if scope.kind != "Pod":
                continue
            for (namespace, name), pod in self._watches.objects(scope).items():
                if (namespace, *_maker(pod, name)) in owners:
                    yield pod

    # Scopes

    def _scopes_of(
        self, release: ReleaseId, objects: Mapping[ObjectRef, Scope] | None
    ) -> tuple[Scope, ...]:
        if objects is None:
            return tuple(self._scope(*kind, release.namespace) for kind in _WORKLOADS)
        makers = {ref.namespace for ref in objects if ref.kind != "PersistentVolumeClaim"}
        pods = {Scope("v1", "Pod", namespace) for namespace in makers if namespace}
        return tuple(sorted({*objects.values(), *pods}))

    def _scope(self, api_version: str, kind: str, namespace: str) -> Scope:
        if (api_version, kind) not in _WORKLOADS:
            return Scope(api_version, kind, namespace)
        where = "" if self._is_everywhere() else namespace
        return Scope(api_version, kind, where, label_selector=_BY_HELM)

    async def _objects_of(
        self, release: ReleaseId, revision: int, rules: CustomRules
    ) -> dict[ObjectRef, Scope]:
        """What of a manifest can be unready, and where it is seen."""
        found: dict[ObjectRef, Scope] = {}
        for manifest in await self._manifests.objects(release, revision):
            api_version, kind = text(manifest, "apiVersion"), text(manifest, "kind")
            name = text(manifest, "metadata", "name")
            has_rule = rules.cover(manifest)
            if not name or not (has_rule or _can_be_unready(api_version, kind)):
                continue
            if dig(manifest, "spec", "ttlSecondsAfterFinished") is not None:
                continue  # goes when it has finished, and helm has waited for that
            namespace = text(manifest, "metadata", "namespace") or release.namespace
            try:
                resource = await self._cluster.resource_for(api_version, kind)
            except ObjectNotFound:
                continue  # the check that follows the action told of it
            namespace = namespace if resource.is_namespaced else ""
            scope = self._scope(api_version, kind, namespace)
            if has_rule:
                scope = Scope(api_version, kind, namespace, is_whole=True)
            found[ObjectRef(api_version, kind, name, namespace)] = scope
        return found

    def _use(self, scope: Scope, release: ReleaseId) -> None:
        users = self._users.setdefault(scope, set())
        if not users:
            self._watches.follow(scope, self._changed)
            for place, live in self._watches.objects(scope).items():
                self._index(scope, place, None, live)
        users.add(release)

    def _drop(self, release: ReleaseId, scopes: Iterable[Scope]) -> None:
        for scope in scopes:
            users = self._users.get(scope, set())
            users.discard(release)
            if not users and scope in self._users:
                del self._users[scope]
                for place, live in self._watches.objects(scope).items():
                    self._index(scope, place, live, None)
                self._watches.unfollow(scope, self._changed)

    # Changes

    def _changed(self, scope: Scope, old: Object | None, new: Object | None) -> None:
        seen = new or old
        if seen is None:
            self._scope_changed(scope)
            return
        place = (text(seen, "metadata", "namespace"), text(seen, "metadata", "name"))
        self._index(scope, place, old, new)
        owner = _release_of(seen)
        users = self._users.get(scope, set())
        concerned = {owner} & users if owner is not None and scope.label_selector else users
        if concerned:
            self._dirty |= concerned
            self._woken.set()

    def _scope_changed(self, scope: Scope) -> None:
        refusal = self._watches.refusal(scope)
        if refusal is not None and scope not in self._told_refusals:
            self._told_refusals.add(scope)
            self._tell_refusal(scope, refusal)
        self._dirty |= self._users.get(scope, set())
        self._woken.set()

    @staticmethod
    def _tell_refusal(scope: Scope, refusal: ClusterError) -> None:
        why = "not allowed to watch" if isinstance(refusal, AccessDenied) else "cannot watch"
        log.warning(
            "%s %s: releases there are looked at every ten seconds in their watch window",
            why,
            scope,
            extra={"action": "watch", "error": str(refusal)},
        )

    def _index(self, scope: Scope, place: Place, old: Object | None, new: Object | None) -> None:
        if not scope.label_selector:
            return
        before, after = _release_of(old), _release_of(new)
        if before is not None and before != after:
            theirs = self._workloads.get(before, {})
            theirs.pop((scope, place), None)
            if not theirs:
                self._workloads.pop(before, None)
        if after is not None:
            self._workloads.setdefault(after, {})[scope, place] = None


def _unknown_after(fold: LiveFold) -> LiveHealth:
    """Nothing is known yet of what comes after what a fold has seen."""
    version = fold.health.version + bool(fold.health.bad)
    return LiveHealth(is_live=False, version=version)


def _can_be_unready(api_version: str, kind: str) -> bool:
    group = group_of(api_version)
    if (group, kind) in _OTHERS_WITH_RULES or (api_version, kind) in _WORKLOADS:
        return True
    return group not in _BUILT_IN and not group.endswith(".k8s.io")


def _release_of(object_: Object | None) -> ReleaseId | None:
    """The release that helm says an object is of."""
    annotations = dig(object_, "metadata", "annotations")
    name = text(annotations, _RELEASE_NAME)
    namespace = text(annotations, _RELEASE_NAMESPACE)
    return ReleaseId(namespace, name) if name and namespace else None


def _maker(pod: Object, name: str) -> tuple[str, str]:
    """Kind and name of what made a pod; of a ReplicaSet's, the Deployment that made that."""
    for owner in items(pod, "metadata", "ownerReferences"):
        kind, maker = text(owner, "kind"), text(owner, "name")
        template = text(pod, "metadata", "labels", "pod-template-hash")
        if kind == "ReplicaSet" and template and maker.endswith(f"-{template}"):
            return "Deployment", maker.removesuffix(f"-{template}")
        return kind, maker
    return "Pod", name
