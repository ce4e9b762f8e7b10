"""Secrets and ConfigMaps that declarations refer to: declared beside them, or in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from helmops.errors import DeclarationError
from helmops.model.declared import DeclarationSet
from helmops.model.releases import DeclarationKey

_SHORTEST_SECRET = 6


class Objects(Protocol):
    """Where ConfigMaps and Secrets are looked up that are not declared."""

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data and binaryData, or None where there is none. Raises ClusterError."""

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError."""


class DeclaredSecrets:
    """Secrets that are declared beside the releases, before those in the cluster.

    `hide` is told each text that must not be shown, once.
    """

    def __init__(self, references: Objects, hide: Callable[..., None] = lambda *_: None) -> None:
        self._references = references
        self._hide = hide
        self.declarations = DeclarationSet()
        #: Texts of all Secrets that were read, to be hidden wherever helm repeats one.
        self.seen: set[str] = set()

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError, and
        DeclarationError for one that is declared and has an error: what the cluster has under the
        same name is not what was meant.
        """
        self._refuse_broken("Secret", key)
        declared = self.declarations.secrets.get(key)
        if declared is not None:
            data: Mapping[str, bytes] | None = declared.resource.content
        else:
            data = await self._references.secret(key)
        self.see(data or {})
        return data

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises ClusterError, and
        DeclarationError for one that is declared and has an error: what the cluster has under the
        same name is not what was meant.
        """
        self._refuse_broken("ConfigMap", key)
        declared = self.declarations.config_maps.get(key)
        if declared is not None:
            return declared.resource.content
        return await self._references.config_map(key)

    def see(self, data: Mapping[str, bytes]) -> None:
        """Hide from now on what is in here, wherever somebody repeats it."""
        new = set(texts_of(data)) - self.seen
        if new:
            self.seen |= new
            self._hide(*new)

    def _refuse_broken(self, kind: str, key: DeclarationKey) -> None:
        error = self.declarations.broken.get((kind, key))
        if error is not None:
            raise DeclarationError(
                f"{kind} {key} has an error: {error.what}",
                where=error.where,
                field=error.field,
                next_step=error.next_step,
            )


def texts_of(data: Mapping[str, bytes]) -> Iterator[str]:
    """The texts in a Secret that would give something away: whole values, and the values in a file
    of YAML. Short ones would hide half of every log.
    """
    for content in data.values():
        text = content.decode("utf-8", "replace").strip()
        lines = text.splitlines()
        candidates = [text, *(line.partition(":")[2] for line in lines)] if lines else []
        for candidate in candidates:
            bare = candidate.strip().strip("\"'")
            if len(bare) >= _SHORTEST_SECRET:
                yield bare
