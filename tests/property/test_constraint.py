"""Ranges: whatever the text, an answer or a ConstraintError, and the same rules everywhere."""

from hypothesis import example, given
from hypothesis import strategies as st

from helmops.resolve.constraint import Constraint, ConstraintError
from helmops.resolve.version import Version

VERSION = st.builds(
    lambda numbers, prerelease, build: ".".join(map(str, numbers)) + prerelease + build,
    st.tuples(*[st.integers(0, 12)] * 3),
    st.sampled_from(["", "", "", "-0", "-alpha", "-rc.1", "-rc.10"]),
    st.sampled_from(["", "", "+b", "+1.2"]),
)
PART = st.sampled_from(["0", "1", "2", "10", "x", "X", "*", "01", "|", "99999999999999999999"])
PARTIAL = st.builds(
    lambda v, parts, prerelease: v + ".".join(parts) + prerelease,
    st.sampled_from(["", "", "v"]),
    st.lists(PART, min_size=1, max_size=4),
    st.sampled_from(["", "", "-0", "-rc.1", "-", "-01", "+b"]),
)
OPERATOR = st.sampled_from(
    ["", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^", "==", "~~"]
)
TERM = st.builds(lambda operator, gap, partial: operator + gap + partial, OPERATOR,
                 st.sampled_from(["", " "]), PARTIAL)  # fmt: skip
RANGE_LIKE = st.lists(
    st.one_of(TERM, st.sampled_from([" ", ",", ", ", "||", " - ", "-", "  ", "\t", "|"])),
    max_size=12,
).map("".join)
ANY_TEXT = st.one_of(
    RANGE_LIKE,
    st.text(max_size=600),
    st.text(alphabet="0123xX*|.-+v<>=~^!, \t", max_size=600),
)


@given(ANY_TEXT, VERSION)
@example("1.0.0 " * 85 + "!", "1.0.0")
@example("1 - " * 128, "1.0.0")
@example(" " * 512, "1.0.0")
@example("x-" + "-" * 500, "1.0.0")
def test_any_text_is_a_range_or_a_constraint_error(text: str, version: str) -> None:
    try:
        constraint = Constraint.parse(text)
    except ConstraintError:
        return
    assert str(constraint) == text
    assert constraint.matches(version) in (True, False)


@given(VERSION, VERSION)
def test_comparisons_agree_with_the_order_of_versions(text: str, other: str) -> None:
    version, limit = Version.parse(text), Version.parse(other)
    # A term with a prerelease beside it opens the group, so that only the order counts.
    opened = {sign: Constraint.parse(f"{sign}{other} >=0.0.0-0") for sign in ("<", "<=", "=", "!=")}
    assert opened["<"].matches(version) == (version < limit)
    assert opened["<="].matches(version) == (version <= limit)
    assert opened["="].matches(version) == (version == limit)
    assert opened["!="].matches(version) == (version != limit)


@given(RANGE_LIKE, VERSION)
def test_build_metadata_never_matters(text: str, version: str) -> None:
    try:
        constraint = Constraint.parse(text)
    except ConstraintError:
        return
    bare = version.partition("+")[0]
    assert constraint.matches(f"{bare}+one") == constraint.matches(bare)


@given(RANGE_LIKE, RANGE_LIKE, VERSION)
def test_groups_are_alternatives(one: str, other: str, version: str) -> None:
    if "|" in one + other or " - " in one + other:
        return
    try:
        first, second = Constraint.parse(one), Constraint.parse(other)
    except ConstraintError:
        return
    both = Constraint.parse(f"{one} || {other}")
    assert both.matches(version) == (first.matches(version) or second.matches(version))
