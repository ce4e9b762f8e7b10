"""Logs: one line per happening, to standard error, as text for people or as JSON.

Release and revision are on each line that is written inside `about_release`, also on those of
libraries. Libraries speak from WARNING up. Values that were named secret do not get through,
neither as they are nor in base64 or percent-encoded.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from helmops.model.redaction import forms_of
from helmops.model.releases import DeclarationKey

LogFormat = Literal["text", "json"]

#: What stands where a secret value was.
HIDDEN = "[hidden]"

#: Control characters, as a program's output may have them: they could move the cursor, forge
#: another line or colour the rest of the terminal.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Redactor:
    """Hides values that were named secret, in texts and in all that logs are made of.

    Thread-safe. As a structlog processor it goes last before the renderer.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*values)

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"

    def add(self, *values: str) -> None:
        """Hide these values from now on."""
        forms = {form for value in values for form in forms_of(value)}
        with self._lock:
            if forms <= self._forms:
                return
            self._forms |= forms
            # The longest first: a secret that begins as another one is hidden as a whole.
            ordered = sorted(self._forms, key=lambda form: (-len(form), form))
            self._pattern = re.compile("|".join(map(re.escape, ordered)))

    def text(self, text: str) -> str:
        """The text without secret values."""
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None else text

    def value(self, value: Any) -> Any:
        """The same for anything that a line of the log may hold."""
        if self._pattern is None or value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if self.text(str(value)) == str(value) else HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(entry) for entry in value]
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        return self.text(str(value))

    def __call__(self, _logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
        return {
            key: value if key in ("_record", "_from_structlog") else self.value(value)
            for key, value in entry.items()
        }


def configure(
    log_format: LogFormat = "text",
    *,
    level: str = "INFO",
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
) -> Redactor:
    """Send all logs of this process to `stream` (standard error); gives back the redactor.

    `level` is that of helmops itself. Colours need a terminal, and no NO_COLOR in `environment`.
    """
    redactor = redactor if redactor is not None else Redactor()
    stream = stream if stream is not None else sys.stderr
    environment = os.environ if environment is None else environment
    shared: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render: list[Processor]
    if log_format == "json":
        shared.append(structlog.stdlib.add_logger_name)
        render = [_in_order, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        render = [TextRenderer(colours=_has_colours(stream, environment))]
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redactor,
                *render,
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("helmops").setLevel(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return redactor


def about_release(
    key: DeclarationKey, revision: int | None = None, **more: Any
) -> AbstractContextManager[None]:
    """Put the release, its revision and what else is named on each line written inside."""
    bound: dict[str, Any] = {"release": str(key), **more}
    if revision is not None:
        bound["revision"] = revision
    return bound_contextvars(**bound)


class TextRenderer:
    """`12:00:01 warning  shop/web v3  what happened  more=fields`.

    Lines after the first of a message, and a traceback, are indented below it.
    """

    _COLOURS = {  # noqa: RUF012 - constant
        "debug": "\x1b[2m",
        "info": "\x1b[32m",
        "warning": "\x1b[33m",
        "error": "\x1b[31m",
        "critical": "\x1b[1;31m",
    }
    _BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: WrappedLogger, _method: str, entry: EventDict) -> str:
        fields = dict(entry)
        time = str(fields.pop("timestamp", ""))[11:19]
        level = str(fields.pop("level", ""))
        what = _readable(fields.pop("event", ""))
        trace = _readable(fields.pop("exception", ""))
        fields.pop("logger", None)
        release, revision = fields.pop("release", None), fields.pop("revision", None)
        head = [self._in(self._DIM, time), self._in(self._COLOURS.get(level, ""), f"{level:8}")]
        if release is not None:
            subject = _readable(release) + (f" v{revision}" if revision is not None else "")
            head.append(self._in(self._BOLD, subject) + " ")
        elif revision is not None:
            fields["revision"] = revision
        first, *rest = what.split("\n") if what else [""]
        tail = " ".join(f"{name}={_field(value)}" for name, value in sorted(fields.items()))
        line = " ".join([*head, first]) + (f"  {self._in(self._DIM, tail)}" if tail else "")
        below = [*rest, *(trace.split("\n") if trace else ())]
        return "\n".join([line, *(f"         {text}" for text in below)])

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{self._PLAIN}" if self._colours and colour else text


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be known again. A reader that went away (`helmops run 2>&1 | head`) is no error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def _in_order(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """What a person looks for first comes first in JSON too."""
    head = {
        "time": entry.pop("timestamp", None),
        "level": entry.pop("level", None),
        "message": entry.pop("event", None),
    }
    return {**head, **entry}


def _has_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    return (
        stream.isatty()
        and not environment.get("NO_COLOR")
        and environment.get("TERM", "dumb") != "dumb"
    )


def _readable(value: object) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(value)).rstrip("\n")


def _field(value: object) -> str:
    text = _readable(value).replace("\n", "\\n")
    return f'"{text}"' if " " in text or not text else text
