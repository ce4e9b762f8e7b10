"""helmops/sources/index.py: cutting one chart out gives what parsing everything gives."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helmops.errors import ChartNotFound, HelmopsError, SourceInvalid
from helmops.model.charts import ChartVersion
from helmops.sources import index as module
from helmops.sources.index import Index, read_versions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "indexes"


def entry(name: str, version: str, **more: Any) -> dict[str, Any]:
    return {
        "annotations": {
            "artifacthub.io/changes": f"- Update to {version}\n- And more\n",
            "artifacthub.io/prerelease": "false",
        },
        "apiVersion": "v2",
        "appVersion": f"{version}-app",
        "created": "2026-03-19T21:16:17.141043059Z",
        "description": "Ingress controller for Kubernetes using NGINX as a reverse proxy and load"
        " balancer",
        "digest": "3eff0bd18151d6e6b1c441463410571443dda1ac78292cb189346628de784f0c",
        "keywords": ["ingress", "nginx"],
        "kubeVersion": ">=1.21.0-0",
        "maintainers": [{"name": "ann"}, {"name": "ben"}],
        "name": name,
        "urls": [f"https://charts.example/{name}-{version}.tgz"],
        "version": version,
        **more,
    }


INDEX: dict[str, Any] = {
    "apiVersion": "v1",
    "entries": {
        "alpha": [entry("alpha", "2.0.0", deprecated=True), entry("alpha", "1.0.0")],
        "ingress-nginx": [entry("ingress-nginx", f"4.{minor}.0") for minor in range(9, 0, -1)],
        "nginx": [entry("nginx", "1.0.0")],
        "zeta": [entry("zeta", "0.1.0", urls=["zeta-0.1.0.tgz", "https://mirror.example/z.tgz"])],
    },
    "generated": "2026-03-19T21:16:17.141505525Z",
}


class _Helm(yaml.SafeDumper):
    """Sorted keys, two spaces, lists as deep as their key, texts of several lines as such."""


_Helm.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def as_helm_writes(index: Any) -> str:
    return yaml.dump(index, Dumper=_Helm, sort_keys=True, default_flow_style=False, width=80)


TEXT = as_helm_writes(INDEX)


class _Strict(yaml.CSafeLoader):
    """The whole index, keys given twice refused, dates left as text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Strict.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
)


def parsed_whole(text: bytes) -> Any:
    return yaml.load(text, Loader=_Strict)


def outcome(text: bytes, chart: str) -> object:
    try:
        return read_versions(text, chart)
    except HelmopsError as error:
        return type(error)


def expected(text: bytes, chart: str) -> object:
    """What the whole parse says: the versions, or which error."""
    try:
        index = parsed_whole(text)
    except yaml.YAMLError:
        return SourceInvalid
    if not isinstance(index, dict) or not index.get("apiVersion"):
        return SourceInvalid
    entries = index.get("entries")
    if entries is not None and not isinstance(entries, dict):
        return SourceInvalid
    if chart not in (entries or {}):
        return ChartNotFound
    listed = entries[chart]
    if listed is not None and not isinstance(listed, list):
        return SourceInvalid
    there = [one for one in listed or () if one is not None]
    if not all(isinstance(one, dict) for one in there):
        return SourceInvalid
    versions = tuple(version_of(one, chart) for one in there if one.get("version"))
    return versions or ChartNotFound


def version_of(one: dict[str, Any], chart: str) -> ChartVersion:
    created = one.get("created")
    return ChartVersion(
        name=one.get("name") or chart,
        version=str(one["version"]),
        urls=tuple(one.get("urls") or ()),
        digest=one.get("digest") or "",
        app_version=str(one.get("appVersion") or ""),
        created=datetime.fromisoformat(created).astimezone(UTC) if created else None,
        deprecated=bool(one.get("deprecated")),
        description=(one.get("description") or "").strip(),
    )


def is_cut(text: bytes) -> bool:
    return module._Layout.of(text) is not None


# Real indexes.


@pytest.mark.parametrize("name", ["ingress-nginx.yaml", "grafana.yaml.gz"])
def test_every_version_of_every_chart_of_a_real_index_is_as_the_whole_parse_has_it(
    name: str,
) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the recorded indexes are not at hand")
    text = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    assert is_cut(text)
    index = parsed_whole(text)
    for chart, listed in index["entries"].items():
        assert read_versions(text, chart) == tuple(version_of(one, chart) for one in listed)


def test_a_regular_index_is_cut_and_not_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(*args: object) -> object:
        raise AssertionError("read as a whole")

    monkeypatch.setattr(module, "_read_irregular", whole)
    for chart in INDEX["entries"]:
        assert read_versions(TEXT.encode(), chart) == expected(TEXT.encode(), chart)
    with pytest.raises(ChartNotFound):
        read_versions(TEXT.encode(), "beta")


@pytest.mark.parametrize("window", [1, 7, 64, 1000])
def test_an_index_that_is_looked_through_in_pieces_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, window: int
) -> None:
    monkeypatch.setattr(module, "_WINDOW", window)
    for change, cut in MUTATIONS.values():
        text = change(TEXT).encode()
        assert is_cut(text) is cut
        path = tmp_path / "index.yaml"
        path.write_bytes(text)
        for chart in ("beta", "nginx", "zeta"):
            wanted = outcome(text, chart)
            try:
                found: object = Index(path, "here").versions(chart)
            except HelmopsError as error:
                found = type(error)
            assert found == wanted


def test_both_ways_agree_on_every_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {chart: read_versions(TEXT.encode(), chart) for chart in INDEX["entries"]}
    monkeypatch.setattr(module._Layout, "of", lambda body: None)
    assert {chart: read_versions(TEXT.encode(), chart) for chart in INDEX["entries"]} == cut


# Mutations: (what, how, whether it can still be cut).


def replaced(old: str, new: str, count: int = -1) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return change


def indented(by: int) -> Callable[[str], str]:
    """The entries with another indentation."""

    def change(text: str) -> str:
        lines = text.split("\n")
        return "\n".join(" " * by + line[2:] if line.startswith("  ") else line for line in lines)

    return change


MUTATIONS: dict[str, tuple[Callable[[str], str], bool]] = {
    "as it is": (str, True),
    "a deeper indentation": (indented(4), True),
    "a shallow indentation": (indented(1), True),
    "lists deeper than their keys": (
        lambda text: yaml.dump(INDEX, Dumper=_Deep, sort_keys=True),
        True,
    ),
    "JSON": (lambda text: json.dumps(INDEX), False),
    "indented JSON": (lambda text: json.dumps(INDEX, indent=2), False),
    "flow style": (lambda text: yaml.safe_dump(INDEX, default_flow_style=True), False),
    "flow style within a chart": (
        lambda text: yaml.safe_dump(INDEX, default_flow_style=None, width=9999),
        True,
    ),
    "a byte order mark": (lambda text: "\ufeff" + text, True),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), False),
    "a line that ends in CR only": (replaced("\n  zeta:\n", "\r  zeta:\n"), False),
    "a document start": (lambda text: "---\n" + text, True),
    "a document end": (lambda text: text + "...\n", False),
    "a YAML directive": (lambda text: "%YAML 1.1\n---\n" + text, False),
    "two documents": (lambda text: text + "---\n" + text, False),
    "comments": (
        replaced("\n  alpha:\n", "\n# one\n\n  # two\n  alpha:\n    # three\n# four\n"),
        True,
    ),
    "a comment behind the chart": (replaced("\n  alpha:\n", "\n  alpha: # first\n"), False),
    "a comment behind entries": (replaced("\nentries:\n", "\nentries: # all\n"), True),
    "blank lines": (lambda text: text.replace("\n  - ", "\n\n  - "), True),
    "trailing spaces": (replaced("\n  nginx:\n", "\n  nginx:   \n"), True),
    "a quoted chart": (replaced("\n  nginx:\n", '\n  "nginx":\n'), False),
    "a chart in single quotes": (replaced("\n  nginx:\n", "\n  'nginx':\n"), False),
    "an escaped chart": (replaced("\n  nginx:\n", '\n  "ngi\\x6ex":\n'), False),
    "an explicit key": (replaced("\n  nginx:\n", "\n  ? nginx\n  :\n"), False),
    "a space before the colon": (replaced("\n  nginx:\n", "\n  nginx :\n"), False),
    "a tag": (replaced("\n  nginx:\n", "\n  nginx: !!seq\n"), False),
    "an anchor on a list": (replaced("\n  nginx:\n", "\n  nginx: &n\n"), False),
    "an anchor and its alias in one chart": (
        lambda text: text.replace("keywords:", "keywords: &k", 1).replace(
            "    maintainers:", "    sources: *k\n    maintainers:", 1
        ),
        True,
    ),
    "an alias of another chart's anchor": (
        lambda text: replaced("\n  zeta:\n", "\n  zeta: *n\n  old:\n")(
            replaced("\n  nginx:\n", "\n  nginx: &n\n")(text)
        ),
        False,
    ),
    "an alias of a scalar of another chart": (
        lambda text: text.replace("appVersion: 2.0.0-app", "appVersion: &a 2.0.0-app").replace(
            "appVersion: 0.1.0-app", "appVersion: *a"
        ),
        True,
    ),
    "a merge key in an entry": (
        replaced(
            "\n  zeta:\n", "\n  zeta:\n  - <<: {digest: abc, name: zeta}\n    version: 1.1.1\n"
        ),
        True,
    ),
    "a merge key among the charts": (
        lambda text: (
            "common: &c\n  beta:\n  - version: 1.0.0\n"
            + replaced("\n  zeta:\n", "\n  <<: *c\n  zeta:\n")(text)
        ),
        False,
    ),
    "an alias without anchor": (replaced("\n  zeta:\n", "\n  zeta: *nothing\n  old:\n"), False),
    "an empty list": (replaced("\n  zeta:\n", "\n  beta: []\n  zeta:\n"), True),
    "a chart that is null": (replaced("\n  zeta:\n", "\n  beta: null\n  zeta:\n"), False),
    "a chart that is a text": (replaced("\n  zeta:\n", "\n  beta: soon\n  zeta:\n"), False),
    "a chart that is a mapping": (replaced("\n  zeta:\n", "\n  beta:\n    a: b\n  zeta:\n"), True),
    "a chart with nothing": (replaced("\n  zeta:\n", "\n  beta:\n  zeta:\n"), True),
    "an entry that is null": (replaced("\n  zeta:\n", "\n  zeta:\n  -\n  - null\n"), True),
    "an entry that is a text": (replaced("\n  zeta:\n", "\n  zeta:\n  - ver\n"), True),
    "an entry without version": (replaced("\n  zeta:\n", "\n  zeta:\n  - name: zeta\n"), True),
    "an entry of another name": (
        replaced("\n  zeta:\n", "\n  zeta:\n  - {name: eta, version: 9.9.9}\n"),
        True,
    ),
    "an entry without name": (replaced("\n  zeta:\n", "\n  zeta:\n  - version: 9.9.9\n"), True),
    "a chart twice": (replaced("\n  zeta:\n", "\n  nginx:\n  - version: 7.7.7\n  zeta:\n"), True),
    "a chart twice, once quoted": (replaced("\n  zeta:\n", "\n  'nginx': []\n  zeta:\n"), False),
    "entries twice": (lambda text: text + "entries:\n  nginx: []\n", False),
    "a key twice in an entry": (
        replaced("    name: zeta\n", "    name: z\n    name: zeta\n"),
        True,
    ),
    "a chart of that name elsewhere, before": (
        lambda text: "annotations:\n  nginx:\n  - version: 6.6.6\n    name: nginx\n" + text,
        True,
    ),
    "a chart of that name elsewhere, behind": (
        lambda text: (
            replaced("\n  nginx:\n", "\n  enginx:\n")(text)
            + "serverInfo:\n  nginx:\n  - version: 6.6.6\n    name: nginx\n"
        ),
        True,
    ),
    "a chart of that name in a text": (
        replaced(
            "- Update to 2.0.0\n",
            "- Update to 2.0.0\n        nginx:\n        - version: 6.6.6\n",
        ),
        True,
    ),
    "a chart of that name in a quoted text that begins in the first column": (
        lambda text: text + 'notes: "one\n\nentries:\n  nginx:\n  - version: 6.6.6\n"\n',
        False,
    ),
    "entries before the version": (
        lambda text: text.replace("apiVersion: v1\n", "", 1) + "apiVersion: v1\n",
        True,
    ),
    "no version": (replaced("apiVersion: v1\n", "", 1), False),
    "an empty version": (replaced("apiVersion: v1\n", 'apiVersion: ""\n', 1), False),
    "no entries": (lambda text: "apiVersion: v1\ngenerated: now\n", False),
    "entries that are null": (lambda text: "apiVersion: v1\nentries:\n", False),
    "entries that are empty": (lambda text: "apiVersion: v1\nentries: {}\n", False),
    "entries that are a list": (lambda text: "apiVersion: v1\nentries:\n- nginx\n", False),
    "a text": (lambda text: "Not Found\n", False),
    "a list": (lambda text: "- apiVersion: v1\n", False),
    "cut off in a line": (lambda text: text[: text.index("version: 1.0.0") + 3], False),
    "cut off in a quoted text": (lambda text: text[: text.index("'false'") + 3], False),
    "a tab as indentation": (replaced("\n    name: nginx\n", "\n\tname: nginx\n"), False),
    "too little indentation": (replaced("\n    name: nginx\n", "\n   name: nginx\n"), True),
    "an unclosed quote": (replaced("    name: nginx\n", '    name: "nginx\n'), True),
    "values that look like others": (
        lambda text: text.replace("appVersion: 0.1.0-app", 'appVersion: "yes"').replace(
            "description: Ingress", "description: '=' #Ingress"
        ),
        True,
    ),
}


class _Deep(yaml.SafeDumper):
    """Writes `key:\n  - item`."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_mutated_index_gives_the_whole_parse_s_answer_or_refusal(what: str) -> None:
    change, cut = MUTATIONS[what]
    text = change(TEXT).encode()
    for chart in ("alpha", "beta", "ingress-nginx", "nginx", "zeta"):
        found, wanted = outcome(text, chart), expected(text, chart)
        if wanted is SourceInvalid and found == expected(TEXT.encode(), chart):
            continue  # what is broken stands in another chart's lines
        assert found == wanted, chart
    assert is_cut(text) is cut


def pairs(count: int) -> list[tuple[str, str]]:
    """Mutations one after the other, the same ones each time; only those that can be."""
    found: list[tuple[str, str]] = []
    for first, second in Random(20).sample(list(itertools.permutations(MUTATIONS, 2)), 2 * count):
        with contextlib.suppress(AssertionError, ValueError):
            MUTATIONS[second][0](MUTATIONS[first][0](TEXT))
            found.append((first, second))
    return found[:count]


PAIRS = pairs(300)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_index_mutated_twice_gives_the_whole_parse_s_answer_or_refusal(
    first: str, second: str
) -> None:
    text = MUTATIONS[second][0](MUTATIONS[first][0](TEXT)).encode()
    for chart in ("alpha", "beta", "ingress-nginx", "nginx", "zeta"):
        found, wanted = outcome(text, chart), expected(text, chart)
        if wanted is SourceInvalid and found in (
            expected(MUTATIONS[first][0](TEXT).encode(), chart),
            expected(MUTATIONS[second][0](TEXT).encode(), chart),
            expected(TEXT.encode(), chart),
        ):
            continue  # what is broken stands in another chart's lines
        assert found == wanted, chart


def test_there_are_three_hundred_of_them() -> None:
    assert len(set(PAIRS)) == 300


@pytest.mark.parametrize(
    ("what", "chart"),
    [
        ("a key twice in an entry", "zeta"),
        ("a chart twice", "nginx"),
        ("a tab as indentation", "nginx"),
        ("too little indentation", "nginx"),
        ("an unclosed quote", "nginx"),
        ("an alias without anchor", "zeta"),
    ],
)
def test_what_is_broken_in_a_chart_s_own_lines_is_refused(what: str, chart: str) -> None:
    assert outcome(MUTATIONS[what][0](TEXT).encode(), chart) is SourceInvalid


names = st.from_regex(r"[a-z][a-z0-9.-]{0,6}", fullmatch=True)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["yes", "null", "1.10", "- x", "a: b", "#", "|", "  nginx:", "\n", "0x1f", "=", ""]
    ),
)
entries = st.fixed_dictionaries(
    {"version": st.sampled_from(["1.0.0", "2.0.0-rc.1", "v3", "0.0.1+b"])},
    optional={
        "name": names,
        "description": texts,
        "appVersion": texts,
        "urls": st.lists(texts, max_size=2),
        "annotations": st.dictionaries(texts, texts, max_size=2),
        "deprecated": st.booleans(),
    },
)
indexes = st.dictionaries(names, st.lists(entries, max_size=3), max_size=5)
styles = st.fixed_dictionaries(
    {
        "default_flow_style": st.sampled_from([False, None]),
        "indent": st.sampled_from([2, 4]),
        "width": st.sampled_from([20, 80, 9999]),
        "allow_unicode": st.booleans(),
        "default_style": st.sampled_from([None, '"', "'", "|"]),
    }
)


@given(indexes, styles, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_any_index_in_any_style_reads_as_the_whole_parse_has_it(
    charts: dict[str, Any], style: dict[str, Any], random: Any
) -> None:
    text = yaml.safe_dump({"apiVersion": "v1", "entries": charts}, **style).encode()
    for chart in (*charts, "absent"):
        wanted = expected(text, chart)
        if isinstance(wanted, tuple):  # our texts have no spaces around them
            wanted = tuple(stripped(version) for version in wanted)
        assert outcome(text, chart) == wanted


def stripped(version: ChartVersion) -> ChartVersion:
    return ChartVersion(
        name=version.name,
        version=version.version,
        urls=tuple(url for one in version.urls if (url := one.strip())),
        app_version=version.app_version.strip(),
        deprecated=version.deprecated,
        description=version.description.strip(),
    )


# Fields.


def test_an_entry_is_read_field_by_field() -> None:
    text = """\
apiVersion: v1
entries:
  app:
  - appVersion: 1.10
    created: 2026-01-02T03:04:05.123456789+02:00
    deprecated: yes
    description: ' an app '
    digest: sha256:ABCDEF
    name: app
    urls: [a.tgz, null, 'https://h/b.tgz']
    version: 1.2.3
"""
    assert read_versions(text.encode(), "app") == (
        ChartVersion(
            name="app",
            version="1.2.3",
            urls=("a.tgz", "https://h/b.tgz"),
            digest="abcdef",
            app_version="1.10",
            created=datetime(2026, 1, 2, 1, 4, 5, 123456, tzinfo=UTC),
            deprecated=True,
            description="an app",
        ),
    )


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "yesterday", ""])
def test_a_time_that_is_none_is_left_out(created: str) -> None:
    text = f"apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n    created: '{created}'\n"
    assert read_versions(text.encode(), "a")[0].created is None


def test_json_numbers_and_booleans_are_read_too() -> None:
    text = json.dumps(
        {
            "apiVersion": "v1",
            "entries": {"a": [{"version": 1, "deprecated": True, "appVersion": None, "urls": 3}]},
        }
    )
    assert read_versions(text.encode(), "a") == (
        ChartVersion(name="a", version="1", deprecated=True),
    )


# Refusals.


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"# nothing\n", "it is empty"),
        (
            b"<!DOCTYPE html><html><head><title> Sign in </title>",
            "it is a web page titled 'Sign in'",
        ),
        (b"\xef\xbb\xbf<html>", "it is a web page"),
        (gzip.compress(b"apiVersion: v1", mtime=0), "it is gzip data"),
        (b"\x7fELF\0\0\0", "it is binary data"),
        (b"Not Found", "no mapping"),
        (b'{"error": "no such repository"}', "no apiVersion"),
        (b"message: not found\nstatus: 404\n", "no apiVersion"),
        (b'{"apiVersion": "v1", "entries": {"a": [{"ver', "broken JSON"),
        (b'{"apiVersion": "v1", "entries": []}', "not a mapping"),
        (b"apiVersion: v1\nentries: {a: [", "cannot be read: line"),
        (b"apiVersion: v1\nentries:\n  a: \xff\n", "cannot be read"),
        (b"apiVersion: v1\n---\napiVersion: v1\n", "more than one document"),
    ],
)
def test_what_is_no_index_is_refused_saying_what_was_found(body: bytes, says: str) -> None:
    with pytest.raises(SourceInvalid, match=says) as caught:
        read_versions(body, "a", "https://charts.example/index.yaml")
    assert "https://charts.example/index.yaml" in str(caught.value)


def test_keys_of_something_else_are_named_as_a_hint() -> None:
    with pytest.raises(SourceInvalid) as caught:
        read_versions(b'{"error": "s3cret", "code": 404}', "a")
    assert "error, code" in caught.value.next_step
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("key", ["a", '"a"'])
def test_a_bomb_of_levels_is_refused_and_not_followed(opening: str, key: str) -> None:
    body = f"apiVersion: v1\nentries:\n  {key}:\n  - {opening * 200_000}\n".encode()
    with pytest.raises(SourceInvalid, match=r"levels|cannot be read"):
        read_versions(body, "a")


def test_a_bomb_of_levels_in_json_is_refused() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    for body in (
        b'{"apiVersion": "v1", "entries": {"a": ' + deep + b"}}",
        b'{"apiVersion": "v1", "x": ' + deep + b"}",
    ):
        with pytest.raises(SourceInvalid, match="levels"):
            read_versions(body, "a")


def test_a_bomb_of_aliases_is_not_unfolded() -> None:
    lines = ["x0: &x0 [a, a]"] + [f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]" for i in range(1, 90)]
    text = "apiVersion: v1\n" + "\n".join(lines)
    text += "\nentries:\n  a:\n  - version: 1.0.0\n    keywords: *x89\n"
    assert len(read_versions(text.encode(), "a")) == 1


def test_an_irregular_index_may_not_be_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IRREGULAR", 100)
    with pytest.raises(SourceInvalid, match="not written as helm writes it"):
        read_versions(TEXT.replace("\n", "\r\n").encode(), "nginx")
    assert read_versions(TEXT.encode(), "nginx")


def test_a_chart_that_is_not_there_comes_with_near_names() -> None:
    with pytest.raises(ChartNotFound) as caught:
        read_versions(TEXT.encode(), "ngnix")
    assert caught.value.next_step == "did you mean nginx?"
    with pytest.raises(ChartNotFound) as caught:
        read_versions(TEXT.encode(), "postgresql")
    assert "it has 4: alpha, ingress-nginx, nginx, zeta" in str(caught.value)


@pytest.mark.parametrize("chart", ["", "a b", "a:", "\n", "ä", "../x", "nginx:\n  - version"])
def test_a_strange_name_is_simply_not_there(chart: str) -> None:
    with pytest.raises(ChartNotFound):
        read_versions(TEXT.encode(), chart)


# Files.


def test_an_index_file_is_checked_and_read(tmp_path: Path) -> None:
    path = tmp_path / "index.yaml"
    path.write_text(TEXT)
    index = Index(path, "where")
    index.check()
    assert index.versions("nginx") == read_versions(TEXT.encode(), "nginx")


@pytest.mark.parametrize("body", ["", "<html>", "apiVersion: v1\nentries: [", "{}"])
def test_a_file_that_is_no_index_does_not_pass_the_check(tmp_path: Path, body: str) -> None:
    path = tmp_path / "index.yaml"
    path.write_text(body)
    with pytest.raises(SourceInvalid, match="where"):
        Index(path, "where").check()


def test_a_file_that_vanished_is_said_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Index(tmp_path / "gone", "where").versions("a")
