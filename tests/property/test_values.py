"""Values against the real helm: generated cases, many of them in one `helm template`."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helmops.errors import ValuesError
from helmops.resolve.digest import config_digest
from helmops.resolve.values import (
    coalesce_values,
    merge_values,
    parse_set,
    parse_values,
    values_for_helm,
)

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: show\nversion: 1.0.0\n",
    "templates/values.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: show}\n"
        "data: {values: {{ toJson .Values | b64enc | quote }} }\n"
    ),
}

KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "y", "1", "1.5", "<<", "", "a b", "global", "é"]),
    st.text(max_size=4),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["yes", "0755", "1:30", "null", "~", "1e3", "2001-01-01", "---", "a: b"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
VALUES = st.dictionaries(KEYS, TREES, max_size=4)

# Few keys and small trees, so that layers meet in them.
LAYER_TREES = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), st.sampled_from(["x", ""]), st.just([1])),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
LAYERS = st.dictionaries(st.sampled_from("abcd"), LAYER_TREES, max_size=4)

#: Values as people write them, with all that YAML 1.1 has.
PLAIN = st.one_of(
    st.from_regex(r"\A[-+]?[0-9_.]{1,8}([eE][-+]?[0-9]{1,3})?\Z"),
    st.from_regex(r"\A[-+]?0[xXoObB]?[0-9a-fA-F_]{1,8}\Z"),
    st.from_regex(r"\A[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T][0-9]{1,2}:[0-9]{2}:[0-9]{2}Z?)?\Z"),
    st.from_regex(r"\A[a-z][a-z0-9 ._/-]{0,12}\Z"),
    st.sampled_from(["y", "Y", "yes", "Yes", "YES", "yEs", "n", "N", "no", "on", "On", "off"]),
    st.sampled_from(["OFF", "true", "TRUE", "tRue", "false", "~", "null", "Null", "y y"]),
    st.sampled_from(["''", '""', "'1'", '"\\x41"', "a#b", "a #b", "=", "<<", "1:30", "1."]),
    st.sampled_from([".5", ".5_0", "!x y", "!!str 1", "!!int '1'", "!!float 1"]),
    st.sampled_from(["!!binary aGk=", "!!null ''", "!!bool 'on'", "[y, 1]", "{y: 1}"]),
    st.sampled_from(["{1: 2, 1.5: 3}", "{<<: {a: 1}, a: 2}", "{a: 2, <<: {a: 1}}"]),
)

YAML_LIKE = st.one_of(
    st.binary(max_size=200), st.text(alphabet="a1:-#{}[]&*!|>'\"%@`, \n\t~<", max_size=80)
)


def as_helm_holds(value: Any) -> Any:
    """Every number a 64-bit float, as in Helm."""
    if isinstance(value, Mapping):
        return {key: as_helm_holds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_helm_holds(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else value


class Shown:
    """`helm template` of a chart that shows its values."""

    def __init__(self, helm: Path, directory: Path) -> None:
        self._helm = helm
        self._chart = directory / "show"
        self._files = directory
        for name, content in CHART.items():
            path = self._chart / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def __call__(self, *files: bytes, defaults: bytes = b"", sets: tuple[str, ...] = ()) -> Any:
        (self._chart / "values.yaml").write_bytes(defaults)
        command = [str(self._helm), "template", "show", str(self._chart)]
        for number, data in enumerate(files):
            path = self._files / f"{number}.yaml"
            path.write_bytes(data)
            command += ["-f", str(path)]
        for line in sets:
            command += ["--set", line]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if done.returncode:
            return None
        encoded = done.stdout.split(b"values: ")[1].split(b'"')[1]
        return json.loads(base64.b64decode(encoded))


@pytest.fixture(scope="module")
def shown(helm4: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Shown(helm4, tmp_path_factory.mktemp("values"))


# A helm takes some 0.1 s, so that one example is a batch of cases, each under a key of its own.
BATCHED = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def under_keys(cases: list[Any]) -> dict[str, Any]:
    return {f"case{number}": case for number, case in enumerate(cases)}


@BATCHED
@given(batch=st.lists(st.tuples(LAYERS, LAYERS, LAYERS, LAYERS), min_size=8, max_size=8))
def test_layers_merge_and_meet_the_defaults_as_in_helm(
    shown: Shown, batch: list[tuple[dict[str, Any], ...]]
) -> None:
    defaults, *layers = (under_keys(list(column)) for column in zip(*batch, strict=True))
    seen = shown(*map(values_for_helm, layers), defaults=values_for_helm(defaults))
    assert as_helm_holds(coalesce_values(defaults, merge_values(layers))) == as_helm_holds(seen)


@settings(BATCHED, max_examples=15)
@given(defaults=LAYERS, layers=st.lists(LAYERS, max_size=3))
def test_nulls_at_the_top_meet_the_defaults_as_in_helm(
    shown: Shown, defaults: dict[str, Any], layers: list[dict[str, Any]]
) -> None:
    seen = shown(*map(values_for_helm, layers), defaults=values_for_helm(defaults))
    assert as_helm_holds(coalesce_values(defaults, merge_values(layers))) == as_helm_holds(seen)


@BATCHED
@given(batch=st.lists(VALUES, min_size=8, max_size=8))
def test_a_values_file_of_ours_arrives_in_helm_as_it_is(
    shown: Shown, batch: list[dict[str, Any]]
) -> None:
    values = under_keys(batch)
    seen = shown(values_for_helm(values))
    assert as_helm_holds(seen) == as_helm_holds(values)
    assert config_digest(seen) == config_digest(values)


@BATCHED
@given(batch=st.lists(st.tuples(PLAIN, PLAIN), min_size=8, max_size=8))
def test_yaml_as_people_write_it_is_read_as_in_helm(
    shown: Shown, batch: list[tuple[str, str]]
) -> None:
    cases: list[str] = []
    for key, value in batch:
        text = f"{key}: {value}\nlist:\n- {value}\n"
        try:
            parse_values(text, "f")
        except ValuesError:
            continue  # the vectors compare errors; one here would hide all of the others
        indented = text.replace("\n", "\n  ").rstrip(" ")
        cases.append(f"case{len(cases)}:\n  {indented}")
    text = "".join(cases)
    assert as_helm_holds(shown(text.encode())) == as_helm_holds(parse_values(text, "f"))


@settings(BATCHED, max_examples=20)
@given(
    base=LAYERS,
    lines=st.lists(
        st.builds(
            lambda keys, index, value: ".".join(keys) + index + "=" + value,
            st.lists(st.sampled_from(["a", "b", r"a\.b"]), min_size=1, max_size=3),
            st.sampled_from(["", "", "[0]", "[1]", "[0][1]", "[1].c"]),
            st.sampled_from(["1", "true", "null", "01", "x", "{1,x}", r"a\,b", "1.5", "x=y"]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_set_lines_do_as_in_helm(shown: Shown, base: dict[str, Any], lines: list[str]) -> None:
    seen = shown(values_for_helm(base), sets=tuple(lines))
    values: Any = base
    try:
        for line in lines:
            values = parse_set(line, values)
    except ValuesError:
        values = None
    assert as_helm_holds(values) == as_helm_holds(seen)


@given(TREES, TREES, TREES)
def test_merging_is_associative_and_keeps_the_top(one: Any, other: Any, last: Any) -> None:
    layers = [{"k": one}, {"k": other}, {"k": last}]
    stepwise = merge_values([merge_values(layers[:2]), layers[2]])
    assert stepwise == merge_values(layers)
    assert merge_values([{}, layers[2]]) == layers[2]


@given(VALUES)
def test_our_reader_gives_our_files_back(values: dict[str, Any]) -> None:
    assert as_helm_holds(parse_values(values_for_helm(values), "f")) == as_helm_holds(values)


@given(YAML_LIKE)
def test_any_bytes_are_values_or_a_values_error(data: bytes | str) -> None:
    try:
        values = parse_values(data, "f")
    except ValuesError:
        return
    assert isinstance(values, dict)
    assert all(isinstance(key, str) for key in values)


@given(st.text(alphabet="ab.[]01={},\\ -é", max_size=40))
def test_any_line_is_set_or_a_values_error(line: str) -> None:
    try:
        values = parse_set(line, {"a": {"b": [1]}})
    except ValuesError:
        return
    assert values_for_helm(values)
