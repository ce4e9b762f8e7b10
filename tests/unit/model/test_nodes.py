"""Through `read_documents`, which is how nodes are made."""

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helmops.model.documents import Document, read_documents


def data(text: str) -> list[object]:
    read = read_documents("f.yaml", text)
    assert [str(error) for error in read.errors] == []
    assert read.complete
    return [document.data for document in read.documents]


def errors(text: str) -> list[str]:
    return [str(error) for error in read_documents("f.yaml", text).errors]


def one(text: str) -> Document:
    (document,) = read_documents("f.yaml", text).documents
    return document


def test_json_is_read_with_lines_tabs_and_surrogate_pairs() -> None:
    document = one(
        '{\n\t"a": "\\ud83d\\ude00\\/",\n\t"b": [1, 2.5, true, null,\n\t\t{"c": -1e2}]\n}\n'
    )
    assert document.data == {"a": "😀/", "b": [1, 2.5, True, None, {"c": -100}]}
    assert document.line_of(("b", 4, "c")) == 4


def test_several_json_values_follow_each_other() -> None:
    assert data('{"a": 1}\n{"b": 2}') == [{"a": 1}, {"b": 2}]


def test_a_flow_mapping_that_is_no_json_is_yaml() -> None:
    assert data("{a: yes, b: 'x'}") == [{"a": True, "b": "x"}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=15,
)


@given(st.dictionaries(st.text(max_size=9), json_values))
def test_every_json_object_is_read_as_json_reads_it(value: dict[str, object]) -> None:
    for indent in (None, 2):
        assert data(json.dumps(value, indent=indent)) == ([value] if value is not None else [])


safe_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(
    st.dictionaries(
        safe_text,
        st.recursive(
            safe_text | st.integers(-(10**9), 10**9) | st.none() | st.booleans(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(safe_text, inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_what_yaml_writes_is_read_back(value: dict[str, object]) -> None:
    # Quoted, so that this does not depend on what PyYAML takes plain scalars for; what is no text
    # gets a tag.
    assert data(yaml.safe_dump(value, default_style='"')) == [value]


def test_anchors_and_merges_are_unfolded_and_not_shared() -> None:
    (value,) = data("base: &b {x: {k: 1}}\none: *b\ntwo:\n  <<: *b\n  z: 2\n")
    assert value == {
        "base": {"x": {"k": 1}},
        "one": {"x": {"k": 1}},
        "two": {"x": {"k": 1}, "z": 2},
    }
    assert isinstance(value, dict)
    value["one"]["x"]["k"] = 5
    assert value["base"]["x"]["k"] == 1
    assert value["two"]["x"]["k"] == 1


@pytest.mark.parametrize(
    ("merge", "value"),
    [
        # Recorded with kubectl 1.37: a merge puts in where it stands, whatever YAML 1.1 says.
        ("{x: 9, <<: *a}", {"x": 1}),
        ("{<<: *a, x: 9}", {"x": 9}),
        ("{<<: *a, <<: {k: 2}}", {"x": 1, "k": 2}),
        ("{<<: [*a, {x: 2, z: 3}]}", {"x": 1, "z": 3}),
        ('{"<<": {k: 2}}', {"<<": {"k": 2}}),
    ],
)
def test_merges_are_those_of_kubectl(merge: str, value: object) -> None:
    assert data(f"m: &a {{x: 1}}\nk: {merge}\n") == [{"m": {"x": 1}, "k": value}]


def test_a_merge_of_something_else_is_an_error() -> None:
    assert errors("k: {<<: 5}\n") == ["f.yaml:1: k: `<<` takes a mapping or a list of mappings"]


def test_an_anchor_is_known_in_its_own_document_only() -> None:
    assert errors("a: &x 1\n---\nb: *x\n") == [
        "f.yaml:3: b: the alias `*x` has no anchor before it"
    ]


def test_a_key_that_is_given_twice_is_an_error_with_both_lines() -> None:
    read = read_documents("f.yaml", "spec:\n  a: 1\n  b: 2\n  a: 3\n---\nx: 1\n")
    assert [str(error) for error in read.errors] == [
        "f.yaml:4: spec.a: the key is given twice, first in line 2 (remove one of the two)"
    ]
    assert read.complete
    assert len(read.documents) == 2


def test_a_key_twice_in_json_is_the_same_error() -> None:
    assert errors('{"a": [\n{"b": 1,\n"b": 2}]}') == [
        "f.yaml:3: a[0].b: the key is given twice, first in line 2 (remove one of the two)"
    ]


def test_a_key_over_one_that_was_merged_is_no_error() -> None:
    assert data("a: &a {x: 1}\nb: {<<: *a, x: 2}\n") == [{"a": {"x": 1}, "b": {"x": 2}}]


def test_keys_that_are_the_same_in_json_are_given_twice() -> None:
    assert errors("1: a\n'1': b\n") == [
        "f.yaml:2: 1: the key is given twice, first in line 1 (remove one of the two)"
    ]


def test_all_errors_of_a_file_are_found() -> None:
    found = errors("a: .inf\nb: .nan\nc: !!int x\n~: y\nd: 1\nd: 2\n")
    assert [text.split(": ")[0] for text in found] == [f"f.yaml:{n}" for n in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: b\n  c: d\n", 2, "mapping values are not allowed"),
        ("a: [1,\n", 1, "did not find expected node content"),
        ("a: 1\n\tb: 2\n", 2, "not with tabs"),
        ("a: {{ .Values.a }}\n", 1, "templates"),
        ("a: 1\n{{- if x }}\nb: 1\n", 3, "template"),
        ("a: 1\nb: \x01\n", 2, "U+0001"),
        ("a: \ud800\n", 1, "U+D800"),
        ("a: *x\n", 1, "no anchor"),
        ("a: &x [*x]\n", 1, "within its own anchor"),
        ("? [1]\n: x\n", 1, "a key must be a plain value"),
        ("a: 'x\n", 1, "not YAML"),
        ("a: 1\n...\nb: 2\n", 3, "document start"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_line(text: str, line: int, said: str) -> None:
    read = read_documents("f.yaml", text)
    assert not read.complete
    (error,) = read.errors
    assert error.where == f"f.yaml:{line}"
    assert said in str(error)


def test_documents_before_the_error_are_known() -> None:
    read = read_documents("f.yaml", "a: 1\n---\nb: [\n")
    assert [document.data for document in read.documents] == [{"a": 1}]
    assert not read.complete


def test_aliases_of_aliases_are_refused_at_once() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.perf_counter()
    (text,) = errors(bomb)
    assert "unfold" in text
    assert time.perf_counter() - started < 5


def test_a_long_text_behind_many_aliases_is_refused() -> None:
    text = f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 1000)}]\n"
    assert "unfold" in errors(text)[0]


def test_merges_of_merges_are_bounded_too() -> None:
    lines = [
        f"a{number}: &a{number} {{p{number}: *a{number - 1}, <<: *a{number - 1}}}"
        for number in range(1, 40)
    ]
    assert "unfold" in errors("\n".join(["a0: &a0 {k: [" + "x, " * 100 + "x]}", *lines]))[0]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, '{"a":' * 5000, "- " * 5000 + "a"])
def test_a_text_that_is_too_deep_is_refused(text: str) -> None:
    assert "levels within each other" in errors(text)[0]


def test_aliases_do_not_help_to_go_deeper() -> None:
    lines = [f"a{number}: &a{number} [[[*a{number - 1}]]]" for number in range(1, 40)]
    assert "levels within each other" in errors("\n".join(["a0: &a0 [[[[x]]]]", *lines]))[0]


@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    read = read_documents("f.yaml", text)
    assert read.complete or read.errors


@given(st.text(st.sampled_from("a1:-?[]{}&*!|>'\"#%@,\n \t<.~"), max_size=40))
def test_no_yaml_like_text_raises_and_every_error_has_a_line(text: str) -> None:
    lines = max(len(text.splitlines()), 1)
    for error in read_documents("f.yaml", text).errors:
        assert 1 <= int(error.where.rpartition(":")[2]) <= lines + 1
