from __future__ import annotations

import pytest

from scripts import histories
from scripts.histories import HISTORIES, TELLERS, Ending, Endings, is_current, page

WELL = Ending(3, "deployed", "one", {1: "superseded", 2: "failed", 3: "deployed"})
BAD = Ending(3, "deployed", "two", {1: "superseded", 2: "failed", 3: "deployed"})


@pytest.fixture
def endings() -> Endings:
    """All histories end well, with either helm."""
    return {
        (history.title, teller.title): {"4.3.1": WELL, "3.19.0": WELL}
        for history in HISTORIES
        for teller in TELLERS
    }


def row(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("|") and title in line)
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_where_both_helms_end_alike_there_is_one_entry(endings: Endings) -> None:
    assert row(page(endings), HISTORIES[0].title) == ["✔ `one`: 3, deployed"] * len(TELLERS)


def test_where_they_do_not_each_has_its_own(endings: Endings) -> None:
    history, teller = HISTORIES[1], TELLERS[0]
    endings[history.title, teller.title]["3.19.0"] = BAD
    text = page(endings)
    assert row(text, history.title)[0] == (
        "helm 4.3.1: ✔ `one`: 3, deployed; helm 3.19.0: ✘ `two`: 3, deployed"
    )
    assert f"- {teller.title}, helm 3.19.0: `two` runs; stored: 1 superseded" in text


def test_a_page_is_current_whatever_came_of_the_histories(endings: Endings) -> None:
    assert is_current(page(endings))
    endings[HISTORIES[2].title, TELLERS[1].title] = {"5.0.0": BAD}
    assert is_current(page(endings))


def test_a_page_of_other_histories_is_not(endings: Endings) -> None:
    text = page(endings)
    assert not is_current(text.replace(HISTORIES[3].steps[1], "It goes on well."))
    assert not is_current(text.replace(f"| {TELLERS[2].title} |", "| another |"))
    assert not is_current(text + "\n## 6. One more\n")


def test_the_page_in_the_docs_is_current() -> None:
    assert is_current(histories.PAGE.read_text())
