"""The versions of one chart, out of the lines of a regular index, four times as fast as by YAML.

Helm writes each entry as a flat mapping, and most of its values are plain texts on one line, or
what a thousand entries have in common (maintainers, keywords). So the lines are cut at the entries'
keys; a text that can only mean itself is taken as it stands, and every other value is read by YAML,
each different one once. A value that is whole by itself is the same where it stands, so that this
gives what YAML gives for all of it; whatever is not of that form is left to YAML.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from helmops.errors import SourceInvalid
from helmops.sources.index_events import ABSENT, NULLS, Events, IrregularError

#: A text without quotes that YAML takes as it stands: no indicator at its start, neither `: ` nor
#: ` #` in it (YAML 1.2, 7.3.3), and nothing but ASCII.
_PLAIN: Final = r"[A-Za-z0-9_./](?:[!-9;-~]|:(?=[!-~])|[ ](?=[!-\"$-~]))*"
_TEXT: Final = re.compile(rf"""[ ]({_PLAIN})\n|[ ]"([ !\#-\[\]-~]*)"\n|[ ]'([ -&(-~]*)'\n""")
#: A list of one such text, as `urls` mostly is.
_LIST_OF_ONE: Final = re.compile(rf"\n[ ]*-[ ]({_PLAIN})\n")
#: The list that the entry itself is in, and the entry.
_LEVELS_AROUND: Final = 2


def regular_entries(block: bytes, chart: str) -> list[dict[str, Any]] | None:
    """The entries of a block that is a chart's name and its list, as `Events.value_of` gives them;
    None where the block is not as regular as this way of reading needs.
    """
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return None
    heading = re.match(rf" *{re.escape(chart)}: *\n( *)- ", text)
    if heading is None:
        return None
    try:
        return _entries(text, heading.start(1), len(heading[1]))
    except (IrregularError, SourceInvalid):
        return None


def _entries(text: str, at: int, dash: int) -> list[dict[str, Any]] | None:
    """Raises IrregularError, SourceInvalid."""
    entries: list[dict[str, Any]] = []
    entry: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for field in _fields(dash).finditer(text, at):
        begins, key, written = field.groups()
        if field.start() != at:
            return None
        at = field.end()
        if begins:
            entry = {}
            entries.append(entry)
        if key in entry:
            return None
        value = values.get(written, ABSENT)
        if value is ABSENT:
            value = values[written] = _value(written, dash + 2)
        entry[key] = value
    return entries if at == len(text) else None


@lru_cache(maxsize=8)
def _fields(dash: int) -> re.Pattern[str]:
    """A key of an entry, its first one behind a dash, and the value to its last line."""
    inner = " " * (dash + 2)
    return re.compile(
        rf"(?:({' ' * dash}- )|{inner})([A-Za-z][A-Za-z0-9_.-]*):"
        rf"((?: [^\n]*)?\n(?:{inner}(?: |-[ \n])[^\n]*\n)*)"
    )


def _value(written: str, column: int) -> Any:
    """Raises IrregularError, SourceInvalid."""
    if text := _TEXT.fullmatch(written):
        plain, *quoted = text.groups()
        if plain is not None:
            return None if plain in NULLS else plain
        return next(one for one in quoted if one is not None)
    if (alone := _LIST_OF_ONE.fullmatch(written)) and alone[1] not in NULLS:
        return [alone[1]]
    block = f"{' ' * column}value:{written}"
    return Events(block.encode(), "", _LEVELS_AROUND).value_of("value")
