from __future__ import annotations

from datetime import UTC, datetime

import pytest

from helmops.model.evidence import Evidence, EvidenceKind, EvidenceSection
from helmops.model.releases import ReleaseId

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WEB = ReleaseId("shop", "web")


def section(title: str, text: str, kind: EvidenceKind = EvidenceKind.LOG) -> EvidenceSection:
    return EvidenceSection(kind, title, text)


def evidence(*sections: EvidenceSection) -> Evidence:
    return Evidence(WEB, 3, NOON, "pod web-1 crashes", sections, ("events: access denied",))


def test_what_was_written_is_read_back() -> None:
    whole = evidence(section("pods", "web-1 Running"), section("a", "ü", EvidenceKind.DIFF))

    assert Evidence.from_json(whole.to_json()) == whole


def test_a_kind_of_a_newer_helmops_is_read() -> None:
    text = evidence(section("pods", "x")).to_json().replace(b'"log"', b'"heap-dump"')

    assert Evidence.from_json(text).sections[0].kind is EvidenceKind.OTHER


def test_what_is_no_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="missing required field"):
        Evidence.from_json(b"{}")


def test_what_fits_stays_as_it_is() -> None:
    whole = evidence(section("a", "x" * 100), section("b", "y" * 100))

    assert whole.within(202) is whole


def test_of_a_log_that_does_not_fit_the_end_stays() -> None:
    lines = "\n".join(f"line {number}" for number in range(1000))

    cut = evidence(section("log", lines)).within(1000).sections[0]

    assert cut.cut
    assert cut.text.startswith("[…]\nline ")
    assert cut.text.endswith("line 999")
    assert 900 < cut.size <= 1000


def test_of_a_diff_that_does_not_fit_the_beginning_stays() -> None:
    lines = "\n".join(f"+line {number}" for number in range(1000))

    cut = evidence(section("diff", lines, EvidenceKind.DIFF)).within(1000).sections[0]

    assert cut.cut
    assert cut.text.startswith("+line 0\n")
    assert cut.text.endswith("\n[…]")
    assert 900 < cut.size <= 1000


def test_one_long_line_is_cut_inside_and_no_character_is_halved() -> None:
    cut = evidence(section("log", "ü" * 1000)).within(1001).sections[0]

    assert cut.text.startswith("[…]\nü")
    assert set(cut.text.removeprefix("[…]\n")) == {"ü"}
    assert cut.size <= 1001


def test_a_section_without_room_is_named_and_a_small_one_after_it_stays() -> None:
    whole = evidence(
        section("first", "x" * 1000), section("second", "y" * 5000), section("third", "z")
    )

    cut = whole.within(1100)

    assert [s.title for s in cut.sections] == ["first", "third"]
    assert cut.missing[-1] == "left out, because the evidence would be larger than 1 KiB: second"


def test_many_that_are_left_out_are_counted() -> None:
    cut = evidence(*(section(f"s{n}", "x" * 600) for n in range(14))).within(600)

    assert cut.missing[-1].endswith("s9, s10 and 3 more")


def test_a_person_reads_the_summary_first() -> None:
    text = evidence(section("pod web-1, container main", "panic: no config\n")).to_text()

    assert text == (
        "shop/web revision 3, 2026-05-01 12:00:00 UTC\n\n"
        "pod web-1 crashes\n\n"
        "not here: events: access denied\n\n"
        "--- pod web-1, container main\npanic: no config"
    )
