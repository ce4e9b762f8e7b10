"""Writes docs/reference from the models and the error tree; `--check` only compares.

    python -m scripts.reference [--check]

The words are the models' own descriptions and the errors' docstrings: mend them there.
"""

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from helmops import errors
from helmops.model.declarations.base import DURATION_PATTERN
from helmops.model.declarations.schemas import json_schemas

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WRITTEN_BY = "<!-- Written by `make docs` from the code; changes belong there. -->\n\n"
_ENVELOPE = ("apiVersion", "kind", "metadata", "status")

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """The text of every page by its file's name."""
    schemas = json_schemas()
    texts = {f"{kind.lower()}.md": _kind_page(kind, schema) for kind, schema in schemas.items()}
    texts["README.md"] = _index(schemas)
    texts["errors.md"] = _errors_page()
    return {name: _WRITTEN_BY + text for name, text in texts.items()}


def _index(schemas: Mapping[str, Schema]) -> str:
    rows = [
        (f"[{kind}]({kind.lower()}.md)", _api_versions(schema), _plain(schema.get("description")))
        for kind, schema in schemas.items()
    ]
    definitions = schemas["HelmRelease"]["$defs"]
    return (
        "# Reference\n\n"
        "The kinds that helmops reads. `helmops schema` prints the same as JSON Schemas, for "
        "editors. An unknown field is an error.\n\n"
        + _table(("Kind", "`apiVersion`", "What it is"), rows)
        + "\nWhat can go wrong, and what follows: [errors](errors.md).\n"
        + "\n## metadata\n\nThe same in every kind.\n\n"
        + _field_table(definitions["Metadata"], definitions)
    )


def _kind_page(kind: str, schema: Schema) -> str:
    definitions = schema.get("$defs", {})
    fields = schema["properties"]
    # What is beside `spec` is the same in every kind; ConfigMap and Secret have no `spec`.
    if "spec" in fields:
        root, path = definitions[fields["spec"]["$ref"].rsplit("/", 1)[1]], "spec"
    else:
        own = {name: field for name, field in fields.items() if name not in _ENVELOPE}
        root, path = {**schema, "properties": own}, ""
    sections = "\n".join(
        (f"## {where}\n\n{_plain(inner.get('description'))}\n\n" if where else "## Fields\n\n")
        + _field_table(inner, definitions)
        for where, inner in _objects(path, root, definitions, ())
    )
    about = _plain(schema.get("description"))
    return f"# {kind}\n\n`apiVersion: {_api_versions(schema)}`\n\n{about}\n\n{sections}"


def _api_versions(schema: Schema) -> str:
    return ", ".join(schema["properties"]["apiVersion"]["enum"])


def _objects(
    path: str, schema: Schema, definitions: Mapping[str, Schema], above: tuple[str, ...]
) -> Iterator[tuple[str, Schema]]:
    """The object at `path` and every one below it; one that holds itself is told once."""
    yield path, schema
    for name, field in schema["properties"].items():
        if (found := _object_of(field)) is None:
            continue
        suffix, reference = found
        inner = definitions[reference]
        if "properties" in inner and reference not in above:
            deeper = f"{path}.{name}{suffix}" if path else f"{name}{suffix}"
            yield from _objects(deeper, inner, definitions, (*above, reference))


def _object_of(field: Schema) -> tuple[str, str] | None:
    """The name of the object that a field holds, with `[]` or `{}` for many of it."""
    if "$ref" in field:
        return "", field["$ref"].rsplit("/", 1)[1]
    for option in field.get("anyOf", ()):
        if found := _object_of(option):
            return found
    for holder, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        inner = field.get(holder)
        if isinstance(inner, Mapping) and (found := _object_of(inner)):
            return suffix + found[0], found[1]
    return None


def _type(field: Schema, definitions: Mapping[str, Schema]) -> str:
    """A field's type in a few words."""
    if "$ref" in field:
        target = definitions[field["$ref"].rsplit("/", 1)[1]]
        return "object" if "properties" in target else _type(target, definitions)
    if "anyOf" in field:
        options = [_type(option, definitions) for option in field["anyOf"]]
        return " or ".join(dict.fromkeys(option for option in options if option != "null"))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if _is_duration(field):
        return "duration"
    match field.get("type"):
        case "array":
            return f"list of {_type(field.get('items', {}), definitions)}"
        case "object":
            values = field.get("additionalProperties")
            inner = _type(values, definitions) if isinstance(values, Mapping) else "anything"
            return f"map of {inner}"
        case str(name):
            return name
        case _:
            return "anything"


def _is_duration(field: Schema) -> bool:
    return field.get("pattern") == DURATION_PATTERN


def _field_table(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    needed = schema.get("required", ())
    rows = []
    for name, field in schema["properties"].items():
        about = field.get("description")
        if not about and (held := _object_of(field)):
            about = definitions[held[1]].get("description")
        default = _default(name, field, needed)
        rows.append((f"`{name}`", _type(field, definitions), default, _plain(about)))
    return _table(("Field", "Type", "Default", "Meaning"), rows)


def _default(name: str, field: Schema, needed: Iterable[str]) -> str:
    if name in needed:
        return "required"
    default = field.get("default")
    if default is None or default in ("", [], {}):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _errors_page() -> str:
    rows = [
        (f"{'— ' * depth}`{error.__name__}`", f"`{error.reason}`", error.follows, _first(error))
        for error, depth in _tree(errors.HelmopsError, 0)
    ]
    return (
        "# Errors\n\n"
        "Every error names what happened, where, and what to do next. The reason is that of the "
        "release's `Ready` condition. What follows: *retry* comes again with back-off, *wait* "
        "when what it waits for changes, *stalled* not before the declaration, the source or a "
        "person changes something.\n\n" + _table(("Error", "Reason", "Follows", "Meaning"), rows)
    )


def _tree(
    error: type[errors.HelmopsError], depth: int
) -> Iterator[tuple[type[errors.HelmopsError], int]]:
    yield error, depth
    for child in error.__subclasses__():
        # Those of errors.py only: whoever imports more must not get another page.
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def _first(error: type[errors.HelmopsError]) -> str:
    return _plain(inspect.cleandoc(error.__doc__ or "").split("\n\n")[0])


def _plain(text: str | None) -> str:
    """A description on one line, its bars harmless in a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Write the pages, or with --check say which are not as they should be and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted = pages()
    present = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    if not parser.parse_args().check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in present.keys() - wanted.keys():
            (FOLDER / name).unlink()
        for name, text in wanted.items():
            (FOLDER / name).write_text(text)
        return 0
    wrong = sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )
    for name in wrong:
        sys.stderr.write(f"docs/reference/{name} is not what the code says; run: make docs\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
