"""What a failure left behind, gathered before anything is rolled back or uninstalled.

An `Evidence` is a value: redacted, bounded in size, written once and only read from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import msgspec

from helmops.model.releases import ReleaseId

#: Bytes of UTF-8 that all sections of one evidence may have together.
LARGEST_EVIDENCE = 256 * 1024
#: A section that would have less than this left is left out and named.
_SMALLEST_REST = 512
_CUT = "[…]\n"


class EvidenceKind(StrEnum):
    """What a section is about."""

    PODS = "pods"
    LOG = "log"
    HOOK_LOG = "hook-log"
    TEST_LOG = "test-log"
    HOOK_OUTPUT = "hook-output"
    EVENTS = "events"
    HELM = "helm"
    DIFF = "diff"
    #: Written by a newer helmops.
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> EvidenceKind:
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class EvidenceSection:
    """One piece: `title` says of what (`pod web-7d9, container main, before its restart`), `text`
    is its lines, the newest last. `cut` tells that there was more.
    """

    kind: EvidenceKind
    title: str
    text: str
    cut: bool = False

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return len(self.title.encode()) + len(self.text.encode())


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found of one revision of one release.

    `summary` is one to three lines with the most telling facts, empty where nothing tells;
    `sections` come with the most important first; `missing` says what could not be had, and why.
    Holds no secret values.
    """

    release: ReleaseId
    revision: int
    at: datetime
    summary: str = ""
    sections: tuple[EvidenceSection, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of UTF-8 of all its text."""
        rest = len(self.summary.encode()) + sum(len(line.encode()) for line in self.missing)
        return rest + sum(section.size for section in self.sections)

    def within(self, limit: int = LARGEST_EVIDENCE) -> Evidence:
        """The same, with sections that have at most `limit` bytes together.

        The first sections stay whole. Of one that does not fit the end stays, except of a diff,
        whose beginning stays; what is left out altogether is named in `missing`.
        """
        left, kept, out = limit, [], []
        for section in self.sections:
            room = left - len(section.title.encode())
            if section.size > left and room < _SMALLEST_REST:
                out.append(section.title)
                continue
            fitting = section if section.size <= left else _shortened(section, room)
            left -= fitting.size
            kept.append(fitting)
        if not out:
            return self if kept == list(self.sections) else replace(self, sections=tuple(kept))
        told = f"left out, because the evidence would be larger than {limit // 1024} KiB: "
        return replace(self, sections=tuple(kept), missing=(*self.missing, told + _enumerated(out)))

    def to_json(self) -> bytes:
        """For the store and `-o json`."""
        return _encoder.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Evidence:
        """Read what `to_json` wrote. Raises ValueError (msgspec's) for anything else."""
        return _decoder.decode(text)

    def to_text(self) -> str:
        """All of it for a person, without a line break at the end."""
        head = f"{self.release} revision {self.revision}, {self.at:%Y-%m-%d %H:%M:%S} UTC"
        parts = [head]
        if self.summary:
            parts.append(self.summary)
        if self.missing:
            parts.append("\n".join(f"not here: {line}" for line in self.missing))
        parts += [f"--- {section.title}\n{section.text}".rstrip("\n") for section in self.sections]
        return "\n\n".join(parts)


def _shortened(section: EvidenceSection, room: int) -> EvidenceSection:
    """The part of its text that has at most `room` bytes, by whole lines where it has lines."""
    data = section.text.encode()
    size = room - len(_CUT.encode())
    if section.kind is EvidenceKind.DIFF:
        text = data[:size].decode(errors="ignore")
        whole = text.rpartition("\n")[0]
        return replace(section, text=f"{whole or text}\n{_CUT}".rstrip("\n"), cut=True)
    text = data[-size:].decode(errors="ignore")
    whole = text.partition("\n")[2]
    return replace(section, text=_CUT + (whole or text), cut=True)


def _enumerated(names: Iterable[str], shown: int = 10) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Evidence)
