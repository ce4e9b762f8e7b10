"""helmops/sources/unpacking.py: archives of files, and what must not come out of one."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from helmops.errors import SourceInvalid
from helmops.sources.archive import ArchiveLimits
from helmops.sources.unpacking import unpack
from tests.fakes.chart_archives import archive_of, member

Member = tuple[tarfile.TarInfo, bytes]
DIRECTORY = tarfile.DIRTYPE


class Room:
    def __init__(self, path: Path) -> None:
        self._archive, self.target = path / "it.tgz", path / "files"
        self.target.mkdir()

    def unpack(
        self, content: bytes, ignore: str | None = "", limits: ArchiveLimits | None = None
    ) -> set[str]:
        self._archive.write_bytes(content)
        more = {"limits": limits} if limits is not None else {}
        unpack(self._archive, self.target, "oci://registry/fleet:1", ignore=ignore, **more)
        return {
            os.path.relpath(os.path.join(directory, name), self.target)
            for directory, _, names in os.walk(self.target)
            for name in names
        }


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_files_and_directories_come_out_and_links_do_not(room: Room) -> None:
    found = room.unpack(
        archive_of(
            [
                member("./", kind=DIRECTORY),
                member("./apps/", kind=DIRECTORY),
                member("./apps/web.yaml", b"kind: List\n"),
                member("deep/er/db.yaml", b"{}"),
                member("apps/link.yaml", kind=tarfile.SYMTYPE, link="../../../etc/passwd"),
                member(".git/config", b"[core]"),
            ]
        )
    )
    assert found == {"apps/web.yaml", "deep/er/db.yaml"}
    assert (room.target / "apps/web.yaml").read_bytes() == b"kind: List\n"


def test_what_an_archive_says_of_modes_counts_for_nothing(room: Room) -> None:
    info, content = member("run.yaml", b"{}")
    info.mode = 0o6777
    closed, _ = member("closed", kind=DIRECTORY)
    closed.mode = 0
    room.unpack(archive_of([(info, content), (closed, b""), member("closed/a.yaml", b"{}")]))
    assert (room.target / "run.yaml").stat().st_mode & 0o7111 == 0
    assert (room.target / "closed/a.yaml").read_bytes() == b"{}"


def test_ignored_files_are_not_there_nor_what_is_empty_without_them(room: Room) -> None:
    content = archive_of(
        [
            member(".sourceignore", b"/docs\n"),
            member("docs/deep/a.yaml", b"{}"),
            member("apps/.sourceignore", b"old.yaml\n"),
            member("apps/old.yaml", b"{}"),
            member("apps/web.yaml", b"{}"),
            member("apps/logo.png", b"\x89PNG"),
        ]
    )
    left = {".sourceignore", "apps/.sourceignore", "apps/logo.png"}
    assert room.unpack(content, "web.yaml") == left
    assert not (room.target / "docs").exists()


def test_nothing_is_ignored_where_the_layer_is_taken_as_it_is(room: Room) -> None:
    content = archive_of([member(".sourceignore", b"*\n"), member("logo.png", b"")])
    assert room.unpack(content, None) == {".sourceignore", "logo.png"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("../evil.yaml", b"{}")], "leads out of it"),
        ([member("a/../../evil.yaml", b"{}")], "leads out of it"),
        ([member("/etc/evil.yaml", b"{}")], "leads out of it"),
        ([member("..\\evil.yaml", b"{}")], "leads out of it"),
        ([member("pipe", kind=tarfile.FIFOTYPE)], "neither a file nor a directory"),
        ([member("disk", kind=tarfile.BLKTYPE)], "neither a file nor a directory"),
        ([member("b", kind=tarfile.LNKTYPE, link="a")], "'b' is a hard link"),
        ([member("a", b"1"), member("./a", b"2")], "'a' twice"),
        ([member("a", b"1"), member("a/b", b"2")], "'a/b' twice"),
        ([member("a/b", b"1"), member("a", b"2")], "'a' twice"),
        ([member("a", b"1"), member("a", kind=DIRECTORY)], "'a' twice"),
        ([member("x" * 300, b"{}")], "a name is too long"),
        ([member("a/" * 1200 + "b", b"{}")], "a name is too long"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_what_leads_out_or_is_no_file_is_refused(
    room: Room, members: list[Member], said: str
) -> None:
    with pytest.raises(SourceInvalid) as refused:
        room.unpack(archive_of(members))
    assert said in str(refused.value)
    assert str(refused.value).startswith("oci://registry/fleet:1: the archive of files is refused")


def test_nothing_is_written_through_a_link(room: Room, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member("out", kind=tarfile.SYMTYPE, link=str(outside))
    assert room.unpack(archive_of([link, member("out/a.yaml", b"{}")])) == {"out/a.yaml"}
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "limits", "said"),
    [
        (b"no archive at all", ArchiveLimits(), "no gzip-packed tar archive"),
        (gzip.compress(b"kind: List\n" * 100), ArchiveLimits(), "no gzip-packed tar archive"),
        (archive_of([member("a", b"0" * 9000)])[:60], ArchiveLimits(), "or broken off"),
        (
            archive_of(member(f"{number}.yaml") for number in range(1001)),
            ArchiveLimits(entries=1000),
            "more than 1000 entries",
        ),
        (
            archive_of([member("bomb.yaml", bytes(3 * 1024**2))]),
            ArchiveLimits(unpacked=1024**2, file=1024**3),
            "unpacks to more than 1 MiB",
        ),
        (
            gzip.compress(gzip.decompress(archive_of([member("a")])) + bytes(3 * 1024**2)),
            ArchiveLimits(unpacked=1024**2),
            "unpacks to more than 1 MiB",
        ),
        (archive_of([member("a", b"0" * 99)]), ArchiveLimits(file=98), "'a' is larger than"),
        (archive_of([member("a", b"0" * 99)]), ArchiveLimits(packed=20), "larger than 20 bytes"),
    ],
    ids=["text", "no-tar", "broken-off", "entries", "bomb", "behind", "file", "packed"],
)
def test_what_is_broken_or_too_large_is_refused(
    room: Room, content: bytes, limits: ArchiveLimits, said: str
) -> None:
    with pytest.raises(SourceInvalid) as refused:
        room.unpack(content, limits=limits)
    assert said in str(refused.value)
