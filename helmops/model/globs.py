"""Paths with wildcards, as people write them in shells.

`*` and `?` stand for characters of one name, `[abc]` and `[!abc]` for one of them, `**` as a whole
name for any number of directories, none included. As in a shell, names that begin with a dot are
matched only by patterns that begin with one.
"""

from __future__ import annotations

import re

_MAGIC = re.compile(r"[*?\[]")


def has_wildcards(path: str) -> bool:
    """Whether a path stands for several."""
    return _MAGIC.search(path) is not None


def fixed_part(path: str) -> tuple[str, str]:
    """A path as the directory that has no wildcards, and the rest; either may be empty."""
    names = path.split("/")
    count = next((at for at, name in enumerate(names) if has_wildcards(name)), len(names) - 1)
    return "/".join(names[:count]), "/".join(names[count:])


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern to be matched in full against paths with `/`.

    Without nested repetition: no path makes matching slow for the few `**` of a real pattern.
    """
    text = ""
    for name in pattern.split("/"):
        if name == "**":
            text += r"(?:(?!\.)[^/]+/)*"
        else:
            text += ("" if name.startswith(".") else r"(?!\.)") + _name(name) + "/"
    # `**` at the end means all files beneath.
    text = text + r"(?!\.)[^/]+" if text.endswith(")*") else text.removesuffix("/")
    return re.compile(text, re.S)


def _name(name: str) -> str:
    text = ""
    at = 0
    while at < len(name):
        character = name[at]
        at += 1
        if character == "*":
            text += "[^/]*" if not text.endswith("[^/]*") else ""
        elif character == "?":
            text += "[^/]"
        elif character == "[" and (end := name.find("]", at + 1 + name.startswith("!", at))) > 0:
            chosen = name[at:end]
            negated = chosen.startswith("!")
            body = chosen[negated:].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            text += f"(?!/)[{'^' if negated else ''}{body}]"
            at = end + 1
        else:
            text += re.escape(character)
    return text
