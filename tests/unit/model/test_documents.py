import pytest

from helmops.model.documents import MAX_SIZE, Document, dotted, read_documents


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


def test_a_file_holds_several_documents_and_empty_ones_do_not_count() -> None:
    assert data("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n---\n") == [{"a": 1}, {"b": 2}]


def test_an_empty_file_holds_nothing() -> None:
    assert data("") == []
    assert data("# only a comment\n") == []


def test_a_byte_order_mark_and_carriage_returns_do_not_matter() -> None:
    document = one("\ufeffa: 1\r\nb:\r\n  c: |\r\n    x\r\n    y\r\n")
    assert document.data == {"a": 1, "b": {"c": "x\ny\n"}}
    assert document.line_of(("b", "c")) == 3


def test_each_field_knows_its_line() -> None:
    document = one(
        "# comment\napiVersion: v1\nspec:\n  list:\n  - a: 1\n  - b:\n      c: 2\n  'd.e': {f: 1}\n"
    )
    assert document.where == "f.yaml:2"
    assert document.line_of(("spec",)) == 3
    assert document.line_of(("spec", "list", 1)) == 6
    assert document.line_of(("spec", "list", 1, "b", "c")) == 7
    assert document.line_of(("spec", "d.e", "f")) == 8
    assert document.where_is(("spec", "list", 0, "a")) == "f.yaml:5"


def test_the_line_of_what_is_not_there_is_that_of_the_nearest_thing_above() -> None:
    document = one("a: 1\nspec:\n  b: 2\n")
    assert document.line_of(("spec", "missing", "deeper")) == 2
    assert document.line_of(("missing",)) == 1
    assert document.line_of(("spec", "b", 3)) == 3


def test_lines_count_on_over_documents() -> None:
    first, second = read_documents("f.yaml", "a: 1\n---\n\nb:\n  c: 1\n").documents
    assert (first.line, second.line, second.line_of(("b", "c"))) == (1, 4, 5)


def test_a_list_gives_its_items_each_with_its_line() -> None:
    read = read_documents(
        "f.yaml", "kind: List\napiVersion: v1\nitems:\n- kind: A\n- kind: B\n  x: 1\n"
    )
    assert [document.data for document in read.documents] == [{"kind": "A"}, {"kind": "B", "x": 1}]
    assert [document.line for document in read.documents] == [4, 5]
    assert read.documents[1].line_of(("x",)) == 6


def test_a_list_of_a_kind_and_a_list_in_a_list_give_their_items_too() -> None:
    text = "kind: HelmReleaseList\nitems: [{kind: List, items: [{kind: A}]}]\n"
    assert data(text) == [{"kind": "A"}]


def test_a_kind_that_only_ends_in_list_is_left_alone() -> None:
    assert data("kind: AllowList\nspec: {items: []}\n") == [
        {"kind": "AllowList", "spec": {"items": []}}
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "valuesFrom", 0, "name"), "spec.valuesFrom[0].name"),
        (
            ("metadata", "labels", "app.kubernetes.io/name"),
            'metadata.labels["app.kubernetes.io/name"]',
        ),
    ],
)
def test_paths_are_written_with_dots(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    (text,) = errors("#" * (MAX_SIZE + 1))
    assert "4 MiB" in text
