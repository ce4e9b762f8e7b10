from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import yaml

from helmops.cli.options import Format
from helmops.cli.output import age, as_text, table, teller
from tests.unit.reconcile.samples import key

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
VALUE = {"b": [1, {"c": "ü – ☃"}], "a": None}


def test_json_and_yaml_keep_order_and_letters() -> None:
    assert json.loads(as_text(VALUE, Format.JSON)) == VALUE
    assert yaml.safe_load(as_text(VALUE, Format.YAML)) == VALUE
    for output in (Format.JSON, Format.YAML):
        text = as_text(VALUE, output)
        assert "ü – ☃" in text
        assert text.index("b") < text.index("a")
        assert not text.endswith("\n")


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert json.loads(as_text({"at": NOW}, Format.JSON)) == {"at": "2026-01-05 12:00:00+00:00"}


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["a", "long name"], [["wide cell", "x"], ["y", ""]]) == (
        "A           LONG NAME\nwide cell   x\ny"
    )


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["name", "ready"], []) == "NAME   READY"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (86399, "23h"),
        (86400, "1d"),
        (86400 * 400, "400d"),
        (-5, "0s"),
    ],
)
def test_an_age_has_one_unit(seconds: int, text: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


@pytest.mark.parametrize("moment", [None, ""])
def test_no_moment_has_no_age(moment: str | None) -> None:
    assert age(moment, NOW) == ""


@pytest.mark.parametrize("text", ["2026-01-05T11:55:00Z", "2026-01-05T12:55:00+01:00"])
def test_moments_may_be_texts_in_any_time_zone(text: str) -> None:
    assert age(text, NOW) == "5m"
    assert age(datetime(2026, 1, 5, 12, 55, tzinfo=timezone(timedelta(hours=1))), NOW) == "5m"


def test_progress_goes_to_standard_error_with_time_and_release(
    capsys: pytest.CaptureFixture[str],
) -> None:
    teller()(key(), "Install: it is absent")
    teller(quiet=True)(key(), "never")
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    time, rest = line.split(" ", 1)
    assert datetime.strptime(time, "%H:%M:%S")  # noqa: DTZ007 - a time of day
    assert rest == "apps/web  Install: it is absent"
