"""Where declarations come from: directories and Git repositories, read again when they change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from helmops.errors import DeclarationError, DecryptionFailed, SourceError
from helmops.model.credentials import GitCredentials
from helmops.model.declaration_set import BuiltDeclarations, read_declarations
from helmops.model.declarations import GitRepositorySpec
from helmops.model.declared import DeclarationSet, Declared, SourceFile
from helmops.model.releases import DeclarationKey
from helmops.reconcile.ports import ArtifactTrees, Clock, GitTrees
from helmops.service.polling import Polls
from helmops.sources.directory import DeclarationDirectory
from helmops.sources.flux_kustomization import Cluster, Decrypt, Following, chain_of
from helmops.sources.flux_places import Place, open_checkout, open_place
from helmops.sources.kustomize import Kustomizer
from helmops.sources.sops import is_encrypted

if TYPE_CHECKING:
    from helmops.service.checkouts import Checkouts
    from helmops.sources.file_tree import FileTree


@dataclass(slots=True)
class _Place:
    """One `-f`: how people write it, and what tells it from any other in the world."""

    label: str
    identity: str
    directory: DeclarationDirectory | None = None
    repository: GitRepositorySpec | None = None
    credentials: GitCredentials = field(default_factory=GitCredentials)
    path: str = ""
    revision: str = ""
    asked_at: datetime | None = None
    #: The files as they were last seen whole, and what is wrong with the place now.
    files: tuple[SourceFile, ...] = ()
    trouble: DeclarationError | None = None
    is_read: bool = False
    #: Where Kustomizations and kustomize find what they name.
    opened: Place | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Locations(Set[str]):
    """What was read: places, and whatever any Kustomization in them brought out, except those
    Kustomizations of which nothing is known now.
    """

    places: frozenset[str]
    unknown: frozenset[DeclarationKey]

    def __contains__(self, identity: object) -> bool:
        place, chain = chain_of(str(identity))
        return place in self.places and self.unknown.isdisjoint(chain)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class Declarations:
    """Everything that all `-f` declare together.

    A place that vanishes, is empty all at once or cannot be reached keeps what it declared before:
    its error is told, and nothing of it counts as removed. With a `builder`, directories are built
    by kustomize where they ask for it, and Flux's Kustomizations followed; `cluster` has the
    variables that are not declared, `see` is told the Secrets that were read.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        git: GitTrees,
        artifacts: ArtifactTrees,
        default_namespace: str,
        random: Callable[[], float],
        decrypt: Decrypt | None = None,
        builder: Kustomizer | None = None,
        cluster: Cluster | None = None,
        see: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._git = git
        self._decrypt = decrypt
        self._open_checkouts = partial(
            _checkouts,
            clock=clock,
            git=git,
            artifacts=artifacts,
            random=random,
            cluster=cluster,
            see=see,
        )
        self._checkouts: Checkouts | None = None
        self._following: Following | None = None
        if builder is not None:
            self._following = Following(
                builder=builder,
                default_namespace=default_namespace,
                checkout=self._files_of,
                cluster=cluster,
                decrypt=decrypt,
                hide=see,
            )
        self._built = BuiltDeclarations()
        self._sealed: dict[SourceFile, SourceFile] = {}
        self._default_namespace = default_namespace
        self._places: list[_Place] = []
        self._polls: Polls[str] = Polls(clock=clock, random=random, cap=timedelta(minutes=2))
        self.current = DeclarationSet()

    def add_directory(self, path: str) -> None:
        """A directory, or a single file."""
        identity = os.path.realpath(path)
        label = str(PurePosixPath(path))
        self._places.append(_Place(label, identity, DeclarationDirectory(path, label=label)))

    def add_git(
        self, repository: GitRepositorySpec, path: str, label: str, credentials: GitCredentials
    ) -> None:
        """A path in a Git repository; `label` is its URL without credentials."""
        place = _Place(label, label, repository=repository, path=path.strip("/"))
        place.credentials = credentials
        self._places.append(place)

    def location_of(self, file: SourceFile) -> str:
        """The identity of the `-f` that a file belongs to, and of the Kustomizations that built it;
        of no `-f`, what it says itself.
        """
        if file.declared_in:
            return file.declared_in
        for place in self._places:
            if file.path == place.label or file.path.startswith(place.label.rstrip("/") + "/"):
                return place.identity
        return file.root

    @property
    def locations(self) -> Set[str]:
        """Identities of all places that were read at least once, with what was built in them."""
        unknown = self._built.suspended | self._built.failed.keys()
        places = frozenset(place.identity for place in self._places if place.is_read)
        return _Locations(places, frozenset(unknown))

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories and files among the places; the whole checkout where more is used."""
        return tuple(
            place.opened.tree.root
            if place.opened is not None and place.opened.tree.is_used
            else place.identity
            for place in self._places
            if place.directory is not None
        )

    async def read(self) -> DeclarationSet:
        """Read everything now, the Git repositories asked. Raises nothing of HelmopsError."""
        for place in self._places:
            await self._refresh(place, is_urgent=True)
        return await self._take_in()

    async def poll(self) -> DeclarationSet | None:
        """What is declared now, or None where nothing changed. Git is asked at its interval."""
        changed = [await self._refresh(place, is_urgent=False) for place in self._places]
        changed += [await self._has_changed_beside(place) for place in self._places]
        if self._following is not None:
            changed.append(await self._following.is_stale(self._clock.now()))
            if self._checkouts is not None:
                changed.append(await self._checkouts.is_stale())
        changed.append(await self._is_opened_now())
        return await self._take_in() if any(changed) else None

    async def _take_in(self) -> DeclarationSet:
        files = [file for place in self._places for file in place.files]
        if self._following is not None:
            if self._checkouts is not None:
                self._checkouts.begin()
            files, self._built = await self._following.follow(
                [(place.opened, place.files) for place in self._places if place.opened],
                self._clock.now(),
            )
        read = await asyncio.to_thread(
            read_declarations,
            [await self._unsealed(file) for file in files],
            default_namespace=self._default_namespace,
            previous=self.current,
            built=self._built,
        )
        troubles = tuple(place.trouble for place in self._places if place.trouble is not None)
        if troubles:
            read = replace(read, errors=(*troubles, *read.errors), complete=False)
        if self._checkouts is not None and (away := self._checkouts.troubles()):
            read = replace(read, errors=(*read.errors, *away))
        self.current = read
        return read

    async def _files_of(self, declared: DeclarationSet, source: Declared[Any]) -> FileTree:
        if self._checkouts is None:
            self._checkouts = self._open_checkouts()
        return await self._checkouts.files_of(declared, source)

    # Files that are read as they are

    async def _unsealed(self, file: SourceFile) -> SourceFile:
        """A file without its encryption; with an error where it cannot be decrypted."""
        text = file.text.encode()
        if self._decrypt is None or not is_encrypted(text):
            return file
        try:
            plain = await asyncio.to_thread(self._decrypt, text, file.path)
            opened = replace(file, text=plain.decode("utf-8", "replace"))
        except DecryptionFailed as error:
            opened = replace(file, error=error)
        self._sealed[file] = opened
        return opened

    async def _is_opened_now(self) -> bool:
        """Whether a file could not be decrypted before, and can be now."""
        files = {file for place in self._places for file in place.files}
        self._sealed = {file: opened for file, opened in self._sealed.items() if file in files}
        for file, before in list(self._sealed.items()):
            if before.error is not None and (await self._unsealed(file)).error is None:
                return True
        return False

    # Places

    async def _has_changed_beside(self, place: _Place) -> bool:
        """Whether files changed that are used and are not among a directory's declarations."""
        if place.opened is None:
            return False
        return await asyncio.to_thread(place.opened.tree.look)

    def _opened(self, place: _Place) -> Place:
        """A directory as it lies now; the same as before where it is at the same place."""
        opened = open_place(place.label, place.label, place.identity)
        before = place.opened
        if before is not None and (before.tree.root, before.start) == (
            opened.tree.root,
            opened.start,
        ):
            before.urls, before.branch = opened.urls, opened.branch
            return before
        return opened

    async def _refresh(self, place: _Place, *, is_urgent: bool) -> bool:
        if place.repository is not None:
            return await self._refresh_git(place, place.repository, is_urgent=is_urgent)
        assert place.directory is not None  # noqa: S101 - a place is one or the other
        return await self._read_directory(place, place.directory)

    async def _read_directory(self, place: _Place, directory: DeclarationDirectory) -> bool:
        content = await asyncio.to_thread(directory.poll)
        if content is None:
            return False
        if content.vanished:
            return self._in_trouble(place, content.vanished, "nothing of it is taken for removed")
        place.files, place.trouble, place.is_read = content.files, None, True
        if self._following is not None:
            place.opened = await asyncio.to_thread(self._opened, place)
        return True

    async def _refresh_git(
        self, place: _Place, repository: GitRepositorySpec, *, is_urgent: bool
    ) -> bool:
        now = self._clock.now()
        is_due = place.asked_at is None or now - place.asked_at >= repository.interval
        if not is_urgent and not (is_due and self._polls.is_due(place.identity)):
            return False
        place.asked_at = now
        try:
            revision = await self._git.resolve(repository, place.credentials)
            if revision == place.revision and place.trouble is None:
                return False
            tree = await self._git.checkout(repository, place.credentials, revision)
        except SourceError as error:
            self._polls.failed(place.identity, error.retry_after)
            place.asked_at = None  # the back-off says when
            return self._in_trouble(place, error.what, error.next_step)
        self._polls.succeeded(place.identity)
        path = os.path.join(tree.path, place.path) if place.path else tree.path
        directory = DeclarationDirectory(path, label=place.label)
        content = await asyncio.to_thread(directory.read)
        if content.vanished:
            return self._in_trouble(
                place, f"{content.vanished} at {revision}", "nothing of it is taken for removed"
            )
        place.files = tuple(replace(file, revision=revision) for file in content.files)
        place.revision, place.trouble, place.is_read = revision, None, True
        if self._following is not None:
            place.opened = open_checkout(
                place.label,
                place.identity,
                tree.path,
                place.path,
                repository.url,
                repository.ref.branch,
            )
        return True

    @staticmethod
    def _in_trouble(place: _Place, what: str, next_step: str) -> bool:
        """Keep what the place declared; whether the trouble is news."""
        before = place.trouble
        place.trouble = DeclarationError(what, where=place.label, next_step=next_step)
        return before is None or before.what != what


def _checkouts(**parts: Any) -> Checkouts:
    """Imported when a source is wanted: most declarations name none but their own."""
    from helmops.service.checkouts import Checkouts

    return Checkouts(**parts)
