"""Where declarations come from: directories and Git repositories, read again when they change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from helmops.errors import DeclarationError, SourceError
from helmops.model.credentials import GitCredentials
from helmops.model.declaration_set import read_declarations
from helmops.model.declarations import GitRepositorySpec
from helmops.model.declared import DeclarationSet, SourceFile
from helmops.reconcile.ports import Clock, GitTrees
from helmops.service.polling import Polls
from helmops.sources.directory import DeclarationDirectory, Decrypt


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


class Declarations:
    """Everything that all `-f` declare together.

    A place that vanishes, is empty all at once or cannot be reached keeps what it declared before:
    its error is told, and nothing of it counts as removed.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        git: GitTrees,
        default_namespace: str,
        random: Callable[[], float],
        decrypt: Decrypt | None = None,
    ) -> None:
        self._clock = clock
        self._git = git
        self._decrypt = decrypt
        self._default_namespace = default_namespace
        self._places: list[_Place] = []
        self._polls: Polls[str] = Polls(clock=clock, random=random, cap=timedelta(minutes=2))
        self.current = DeclarationSet()

    def add_directory(self, path: str) -> None:
        """A directory, or a single file."""
        identity = os.path.realpath(path)
        label = str(PurePosixPath(path))
        directory = DeclarationDirectory(path, label=label, decrypt=self._decrypt)
        self._places.append(_Place(label, identity, directory))

    def add_git(
        self, repository: GitRepositorySpec, path: str, label: str, credentials: GitCredentials
    ) -> None:
        """A path in a Git repository; `label` is its URL without credentials."""
        place = _Place(label, label, repository=repository, path=path.strip("/"))
        place.credentials = credentials
        self._places.append(place)

    def location_of(self, file: SourceFile) -> str:
        """The identity of the `-f` that a file belongs to; of no `-f`, what it says itself."""
        for place in self._places:
            if file.path == place.label or file.path.startswith(place.label.rstrip("/") + "/"):
                return place.identity
        return file.root

    @property
    def locations(self) -> frozenset[str]:
        """Identities of all places that were read at least once."""
        return frozenset(place.identity for place in self._places if place.is_read)

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories and files among the places."""
        return tuple(place.identity for place in self._places if place.directory is not None)

    async def read(self) -> DeclarationSet:
        """Read everything now, the Git repositories asked. Raises nothing of HelmopsError."""
        for place in self._places:
            await self._refresh(place, is_urgent=True)
        return self._take_in()

    async def poll(self) -> DeclarationSet | None:
        """What is declared now, or None where nothing changed. Git is asked at its interval."""
        changed = [await self._refresh(place, is_urgent=False) for place in self._places]
        return self._take_in() if any(changed) else None

    def _take_in(self) -> DeclarationSet:
        files = [file for place in self._places for file in place.files]
        read = read_declarations(
            files, default_namespace=self._default_namespace, previous=self.current
        )
        troubles = tuple(place.trouble for place in self._places if place.trouble is not None)
        if troubles:
            read = replace(read, errors=(*troubles, *read.errors), complete=False)
        self.current = read
        return read

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
        directory = DeclarationDirectory(path, label=place.label, decrypt=self._decrypt)
        content = await asyncio.to_thread(directory.read)
        if content.vanished:
            return self._in_trouble(
                place, f"{content.vanished} at {revision}", "nothing of it is taken for removed"
            )
        place.files = tuple(replace(file, revision=revision) for file in content.files)
        place.revision, place.trouble, place.is_read = revision, None, True
        return True

    @staticmethod
    def _in_trouble(place: _Place, what: str, next_step: str) -> bool:
        """Keep what the place declared; whether the trouble is news."""
        before = place.trouble
        place.trouble = DeclarationError(what, where=place.label, next_step=next_step)
        return before is None or before.what != what
