"""Versions as Helm reads them: `semver.Version`, read leniently, ordered quickly.

Helm reads versions with Masterminds/semver 3.5.0 (`NewVersion`), which takes more than the
specification does: a leading `v`, missing parts (`1.2` is 1.2.0) and leading zeros. Flux and OCI
tags want the strict form (`StrictNewVersion`). `semver.Version.parse` reads only the strict form
and compares slowly, so both are done here.
"""

from __future__ import annotations

import re
from typing import Any, SupportsInt

import semver

from helmops.errors import VersionError

#: Bytes; longer text is no version for Helm either.
MAX_LENGTH = 256

#: Numbers in a version are unsigned 64-bit integers, for Helm a larger one is no version.
MAX_NUMBER = 2**64 - 1

#: Orders versions as semver does, build metadata left out.
SortKey = tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]

# Every quantifier is possessive: nothing is ever tried twice, whatever the text.
_IDENTIFIERS = r"[0-9A-Za-z-]++(?:\.[0-9A-Za-z-]++)*+"
_LENIENT = re.compile(
    r"v?+([0-9]++)(?:\.([0-9]++))?+(?:\.([0-9]++))?+"
    rf"(?:-({_IDENTIFIERS}))?+(?:\+({_IDENTIFIERS}))?+"
)
_NUMBER = r"(0|[1-9][0-9]*+)"
_STRICT = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIERS}))?+(?:\+({_IDENTIFIERS}))?+"
)


class Version(semver.Version):
    """One version. Build metadata takes no part in comparison or hash, as in Helm.

    `text` is what it was read from (`v1.2`), `str()` the full form (`1.2.0`).
    """

    __slots__ = ("_key", "_text")

    def __init__(
        self,
        major: SupportsInt,
        minor: SupportsInt = 0,
        patch: SupportsInt = 0,
        prerelease: str | bytes | int | None = None,
        build: str | bytes | int | None = None,
        *,
        text: str = "",
    ) -> None:
        super().__init__(major, minor, patch, prerelease, build)
        self._key = sort_key(self)
        self._text = text

    @classmethod
    def parse(cls, version: str | bytes, optional_minor_and_patch: bool = True) -> Version:
        """Read a version as Helm does, or strictly when the minor and patch are not optional.

        Raises VersionError.
        """
        text = version.decode("utf-8", "replace") if isinstance(version, bytes) else version
        if not isinstance(text, str):
            raise TypeError(f"a version is text, not {type(version).__name__}")
        found = (_LENIENT if optional_minor_and_patch else _STRICT).fullmatch(text)
        if found is None or len(text) > MAX_LENGTH:
            raise VersionError(
                f"{_shortened(text)} is not a semantic version",
                next_step="a version looks like 1.2.3, 1.2.3-rc.1 or 1.2.3+build",
            )
        major, minor, patch, prerelease, build = found.groups()
        numbers = int(major), int(minor or 0), int(patch or 0)
        if max(numbers) > MAX_NUMBER:
            raise VersionError(f"{_shortened(text)} has a number of more than 64 bits")
        if prerelease is not None and _has_leading_zero(prerelease):
            raise VersionError(
                f"{_shortened(text)} has a number with a leading zero in its prerelease"
            )
        return cls(*numbers, prerelease, build, text=text)

    @classmethod
    def strict(cls, text: str) -> Version:
        """Read a version of all three parts, without `v`. Raises VersionError."""
        return cls.parse(text, optional_minor_and_patch=False)

    @classmethod
    def of(cls, version: semver.Version) -> Version:
        """The same version as one of ours."""
        if isinstance(version, cls):
            return version
        return cls(*version.to_tuple())

    @property
    def key(self) -> SortKey:
        """What it is ordered by; sorting by it is many times faster than by the versions."""
        return self._key

    @property
    def text(self) -> str:
        """What it was read from; the full form where it was not read."""
        return self._text or str(self)

    def __eq__(self, other: object) -> bool:
        return self._key == sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return self._key != sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __lt__(self, other: Any) -> bool:
        return self._key < sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._key <= sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._key > sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._key >= sort_key(other) if isinstance(other, semver.Version) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)


def sort_key(version: semver.Version) -> SortKey:
    """What orders a version: its numbers, then a release over all of its prereleases.

    Identifiers of a prerelease compare as numbers where they are (up to 64 bits), and a number is
    lower than a word.
    """
    if isinstance(version, Version) and hasattr(version, "_key"):
        return version._key
    prerelease = version.prerelease
    if prerelease is None:
        return version.major, version.minor, version.patch, 1, ()
    identifiers = tuple(map(_identifier_key, prerelease.split(".")))
    return version.major, version.minor, version.patch, 0, identifiers


def _identifier_key(identifier: str) -> tuple[int, int, str]:
    if identifier.isdigit() and (number := int(identifier)) <= MAX_NUMBER:
        return 0, number, ""
    return 1, 0, identifier


def _has_leading_zero(prerelease: str) -> bool:
    return any(
        len(identifier) > 1 and identifier[0] == "0" and identifier.isdigit()
        for identifier in prerelease.split(".")
    )


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
