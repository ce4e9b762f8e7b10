"""helmops/sources/archive.py: what is let through, and what is not."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from helmops.errors import ChartRefused
from helmops.sources.archive import ArchiveLimits, ChartFacts, inspect_archive, read_chart_yaml
from tests.fakes.chart_archives import archive_of, chart_archive, chart_yaml, member

CHART = member("app/Chart.yaml", chart_yaml("app", "1.2.3").encode())
SMALL = ArchiveLimits(packed=4096, unpacked=256 * 1024, file=64 * 1024, entries=20)


def inspected(tmp_path: Path, content: bytes, limits: ArchiveLimits = SMALL) -> ChartFacts:
    path = tmp_path / "chart.tgz"
    path.write_bytes(content)
    return inspect_archive(path, "app-1.2.3 of test", limits)


def test_a_chart_s_facts_are_read(tmp_path: Path) -> None:
    more = "appVersion: 1.10\ndeprecated: true\ntype: library\ndependencies:\n- name: common\n"
    assert inspected(tmp_path, chart_archive("app", "v1.2", more)) == ChartFacts(
        name="app",
        version="v1.2",
        app_version="1.1",  # so does Helm
        deprecated=True,
        is_library=True,
        dependencies=({"name": "common"},),
    )


@pytest.mark.parametrize(
    "extra",
    [
        member("app/templates/", kind=tarfile.DIRTYPE),
        member("app/", kind=tarfile.DIRTYPE),
        member("app/NOTES", kind=tarfile.SYMTYPE, link="templates/NOTES.txt"),
        member("app/templates/x", kind=tarfile.SYMTYPE, link="../values.yaml"),
        member("app/hard", kind=tarfile.LNKTYPE, link="app/Chart.yaml"),
        member("app\\templates\\a.yaml", b"x"),
        member("app/" + "long/" * 60 + "name.yaml", b"x"),
        member("app/umläut ☃", b"x"),
    ],
    ids=lambda extra: extra[0].name[:20],
)
def test_what_is_harmless_is_let_through(
    tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes]
) -> None:
    assert inspected(tmp_path, archive_of([CHART, extra])).name == "app"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (member("app/../../etc/passwd", b"x"), "leads out"),
        (member("../app/x", b"x"), "leads out"),
        (member("/etc/passwd", b"x"), "leads out"),
        (member("app/..", b"x"), "leads out"),
        (member("..\\..\\x", b"x"), "leads out"),
        (member("C:/windows", b"x"), "leads out"),
        (member("c:\\windows", b"x"), "leads out"),
        (member("./", kind=tarfile.DIRTYPE), "without a name"),
        (member("other/Chart.yaml", b"x"), "not all of it is in one directory"),
        (member("file", b"x"), "not all of it is in one directory"),
        (member("app", b"x"), "not all of it is in one directory"),
        (member("app/Chart.yaml", b"x"), "twice"),
        (member("app//Chart.yaml", b"x"), "twice"),
        (member("app/./Chart.yaml", b"x"), "twice"),
        (member("app/l", kind=tarfile.SYMTYPE, link="../../etc"), "link leads out"),
        (member("app/l", kind=tarfile.SYMTYPE, link="/etc/passwd"), "link leads out"),
        (member("app/l", kind=tarfile.LNKTYPE, link="etc/passwd"), "link leads out"),
        (member("app/l", kind=tarfile.LNKTYPE, link="app/../x"), "link leads out"),
        (member("app/d", kind=tarfile.CHRTYPE), "neither a file nor a directory"),
        (member("app/d", kind=tarfile.BLKTYPE), "neither a file nor a directory"),
        (member("app/d", kind=tarfile.FIFOTYPE), "neither a file nor a directory"),
        (member("app/big", bytes(65 * 1024)), "'app/big' is larger than 65536 bytes"),
    ],
)
def test_what_is_not_harmless_is_refused_saying_what(
    tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes], says: str
) -> None:
    with pytest.raises(ChartRefused, match=says) as caught:
        inspected(tmp_path, archive_of([CHART, extra]))
    assert str(caught.value).startswith("app-1.2.3 of test: the chart archive is refused: ")


def test_a_bomb_is_counted_as_it_unpacks(tmp_path: Path) -> None:
    files = [member(f"app/{count}", bytes(60 * 1024)) for count in range(9)]
    content = archive_of([CHART, *files])
    assert len(content) < SMALL.packed
    with pytest.raises(ChartRefused, match="unpacks to more than 262144 bytes"):
        inspected(tmp_path, content)


def test_a_bomb_behind_the_end_of_the_archive_counts(tmp_path: Path) -> None:
    raw = gzip.decompress(archive_of([CHART])) + bytes(300 * 1024)
    with pytest.raises(ChartRefused, match="unpacks to more"):
        inspected(tmp_path, gzip.compress(raw))


def test_a_bomb_in_a_header_is_counted(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = CHART[0].replace()
        info.pax_headers = {"comment": "x" * 400_000}
        archive.addfile(info, io.BytesIO(CHART[1]))
    with pytest.raises(ChartRefused, match="unpacks to more"):
        inspected(tmp_path, gzip.compress(raw.getvalue()))


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(CHART[0], io.BytesIO(CHART[1]))
        info = tarfile.TarInfo("app/holes")
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "1048576,0",
            "GNU.sparse.size": "1048576",
        }
        archive.addfile(info)
    with pytest.raises(ChartRefused):
        inspected(tmp_path, gzip.compress(raw.getvalue()))


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    files = [member(f"app/{count}") for count in range(30)]
    with pytest.raises(ChartRefused, match="more than 20 entries"):
        inspected(tmp_path, archive_of([CHART, *files]))


def test_too_large_an_archive_is_not_even_opened(tmp_path: Path) -> None:
    with pytest.raises(ChartRefused, match="larger than 10 bytes"):
        inspected(tmp_path, b"x" * 11, ArchiveLimits(packed=10))


GOOD = chart_archive("app", "1.2.3")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        b"<html>",
        gzip.compress(b"no tar" * 200, mtime=0),
        GOOD[: len(GOOD) // 2],
        GOOD[:-4],
        GOOD + b"garbage",
        GOOD[:-8] + bytes(8),
        gzip.compress(b"", mtime=0),
    ],
    ids=["empty", "text", "html", "no tar", "half", "cut", "garbage", "wrong sum", "nothing"],
)
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ChartRefused, match=r"no gzip-packed|no Chart.yaml"):
        inspected(tmp_path, content)


def test_headers_of_headers_without_end_are_refused(tmp_path: Path) -> None:
    link = member("././@LongLink", b"x\0", kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(ChartRefused):
        inspected(tmp_path, archive_of([link] * 3000), ArchiveLimits())


def test_an_archive_without_a_chart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChartRefused, match=r"no Chart\.yaml"):
        inspected(tmp_path, archive_of([member("app/values.yaml", b"{}")]))
    with pytest.raises(ChartRefused, match=r"no Chart\.yaml"):
        inspected(
            tmp_path,
            archive_of([member("app/Chart.yaml", kind=tarfile.SYMTYPE, link="values.yaml")]),
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "cannot be read"),
        ("- a", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("version: 1.2.3", "no usable name"),
        ("name: ../x\nversion: 1.2.3", "no usable name"),
        ("name: ..\nversion: 1.2.3", "no usable name"),
        ("name: app", "version"),
        ("name: app\nversion: latest", "version"),
    ],
)
def test_a_chart_yaml_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(ChartRefused, match=says):
        read_chart_yaml(text.encode(), "here")


def test_a_version_that_is_a_number_is_read_as_helm_reads_it() -> None:
    assert read_chart_yaml(b"name: app\nversion: 1.10", "here").version == "1.1"
    assert read_chart_yaml(b"name: app\nversion: 2", "here").version == "2"
