from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helmops.model.declarations import Metadata, format_duration, parse_duration
from helmops.model.declarations.base import Count, Model
from helmops.model.releases import DeclarationKey
from tests.unit.model.manifests import config_map


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta(0)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(seconds=1, milliseconds=500)),
        ("90s", timedelta(minutes=1, seconds=30)),
        ("5m0s", timedelta(minutes=5)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("30m1h", timedelta(hours=1, minutes=30)),
        ("1h1h", timedelta(hours=2)),
        ("0.1h", timedelta(minutes=6)),
        ("2000h", timedelta(hours=2000)),
        ("0.0001ms", timedelta(0)),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 m",
        "m",
        "1d",
        "-5m",
        "+5m",
        "5M",
        "1us",
        "1ns",
        ".5s",
        "5.s",
        "5m\n",
        "١m",
        "P1D",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("given_value", [5, 5.0, None, True, ["5m"]])
def test_a_number_is_no_duration(given_value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(given_value)


def test_durations_end_where_gos_end() -> None:
    assert parse_duration("2562047h47m16.854s").days == 106751
    with pytest.raises(ValueError, match="292 years"):
        parse_duration("2562048h")
    with pytest.raises(ValueError, match="292 years"):
        parse_duration("9" * 400 + "h")


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(microseconds=100), "0.1ms"),
        (timedelta(seconds=1, microseconds=1), "1.000001s"),
        (timedelta(minutes=5), "5m0s"),
        (timedelta(hours=1, minutes=30), "1h30m0s"),
        (timedelta(days=2), "48h0m0s"),
    ],
)
def test_durations_are_written_as_go_writes_them(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


def test_a_duration_without_hours_stays_in_minutes() -> None:
    assert format_duration(timedelta(hours=2), hours=False) == "120m0s"


@given(st.timedeltas(timedelta(0), timedelta(days=100_000)))
def test_every_duration_survives_writing_and_reading(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


def test_a_negative_duration_is_not_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


class Counted(Model):
    number: Count = 7
    texts: tuple[str, ...] = ()


def test_null_is_the_same_as_absent() -> None:
    assert Counted.model_validate({"number": None}).number == 7
    assert Counted.model_validate({"number": None}).model_fields_set == set()


def test_a_whole_float_is_an_integer_and_others_are_not() -> None:
    assert Counted.model_validate({"number": 5.0}).number == 5
    for wrong in (5.5, "5", True):
        with pytest.raises(ValidationError):
            Counted.model_validate({"number": wrong})


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Counted().number = 3  # type: ignore[misc]


def test_an_error_does_not_repeat_what_was_given() -> None:
    with pytest.raises(ValidationError) as raised:
        Counted.model_validate({"number": "hunter2"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["web", "web-1", "a.b-c.d", "1a"])
def test_names_are_those_of_kubernetes(name: str) -> None:
    assert Metadata.model_validate({"name": name}).name == name


@pytest.mark.parametrize(
    "name", ["", "Web", "a_b", "-a", "a-", "a..b", "a/b", "é", "a" * 254, "a\n"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Metadata.model_validate({"name": name})


def test_what_a_cluster_fills_in_is_accepted() -> None:
    resource = config_map(
        uid="1",
        resourceVersion="5",
        generation=3,
        creationTimestamp="2026-01-01T00:00:00Z",
        managedFields=[{"manager": "kubectl"}],
        ownerReferences=[{"kind": "A"}],
        finalizers=["x"],
    )
    assert resource.key == DeclarationKey("apps", "settings")


def test_the_manifest_is_what_was_said_and_no_defaults() -> None:
    assert config_map().manifest() == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "apps"},
        "data": {"a": "1"},
    }
