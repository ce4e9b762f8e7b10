"""What helmops was told by its options and by the environment.

An option wins over its variable, a variable over the default; an empty variable says nothing.
All that cannot be used is said at once. Reads no files, and imports nothing heavy.

| option | variable | default |
| --- | --- | --- |
| `-f`, `--filename` (repeatable) | `HELMOPS_FILENAME`: one a line, or separated by commas | none |
| `--state` | `HELMOPS_STATE` | `sqlite:///$XDG_STATE_HOME/helmops/state.db` |
| `--listen` | `HELMOPS_LISTEN` | `127.0.0.1:9640` |
| `--defaults` | `HELMOPS_DEFAULTS` | `safe` |
| `--helm` | `HELMOPS_HELM` | `helm`, looked for on PATH |
| `--kubectl` | `HELMOPS_KUBECTL` | `kubectl`, looked for on PATH |
| - | `HELMOPS_SOPS` | `sops`, looked for on PATH |
| `--remote-bases` | `HELMOPS_REMOTE_BASES` | no |
| `-n`, `--namespace` | `HELMOPS_NAMESPACE` | `default` |
| `--watch-namespace` (repeatable) | `HELMOPS_WATCH_NAMESPACE`: separated by commas | all |
| `--kubeconfig` | `KUBECONFIG` | as kubectl has it |
| `--context` | `HELMOPS_CONTEXT` | the current one |
| `--concurrency` | `HELMOPS_CONCURRENCY` | 8 |
| `--grace-period` | `HELMOPS_GRACE_PERIOD` | `30s` |
| `--cache-dir` | `HELMOPS_CACHE_DIR` | `$XDG_CACHE_HOME/helmops` |
| `--cache-size` | `HELMOPS_CACHE_SIZE`: bytes, or as `500MiB` | `2GiB` |
| `--log-format` | `HELMOPS_LOG_FORMAT` | `text` |
| `--log-level` | `HELMOPS_LOG_LEVEL` | `info` |
| `--observe` | `HELMOPS_OBSERVE` | no |
| `--allow-commands` | `HELMOPS_ALLOW_COMMANDS` | no: hooks with a `command` are refused |

Other variables that begin with `HELMOPS_` are nobody's mistake: Kubernetes itself sets
`HELMOPS_PORT` and `HELMOPS_SERVICE_HOST` in every pod beside a Service named helmops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from helmops.errors import UsageError
from helmops.store.address import StateAddress

_T = TypeVar("_T")

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_GRACE = timedelta(seconds=30)
_CACHE_SIZE = 2 * 1024**3
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})")
_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}i": 1024**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_LEVELS = ("debug", "info", "warning", "error")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the HTTP server listens. Port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"the IPv6 address in {text!r} goes into brackets, as [::1]:9640")
        if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is no HOST:PORT, as 127.0.0.1:9640 is")
        if not host:
            raise ValueError(
                f"{text!r} names no host; write 127.0.0.1:{port} for this machine only, "
                f"0.0.0.0:{port} for all who can reach it"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service and the commands run with.

    `filenames` may hold credentials in URLs and is not shown. `watch_namespaces` empty means all.
    `kubeconfig` and `context` empty mean what kubectl would take; `helm`,
    `kubectl` (whose kustomize is used) and `sops` are names on PATH or paths.
    """

    filenames: tuple[str, ...] = field(repr=False)
    state: StateAddress
    listen: Listen
    defaults: Literal["safe", "flux"]
    helm: str
    kubectl: str
    remote_bases: bool
    sops: str
    namespace: str
    watch_namespaces: tuple[str, ...]
    kubeconfig: str
    context: str
    concurrency: int
    grace_period: timedelta
    cache_dir: Path
    #: Bytes of charts that are kept in the cache.
    cache_size: int
    log_format: Literal["text", "json"]
    log_level: str
    observe: bool
    allow_commands: bool = False

    @classmethod
    def load(cls, options: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
        """Settings from options (by field name, None or () for one that was not given).

        Raises UsageError with everything that is wrong.
        """
        told = _Told(options, environment)
        read = told.read
        settings = {
            "filenames": read("filenames", "--filename", "FILENAME", _filenames, tuple),
            "state": read(
                "state", "--state", "STATE", StateAddress.parse, lambda: _state_file(environment)
            ),
            "listen": read(
                "listen", "--listen", "LISTEN", Listen.parse, lambda: Listen("127.0.0.1", 9640)
            ),
            "defaults": read(
                "defaults", "--defaults", "DEFAULTS", _one_of("safe", "flux"), lambda: "safe"
            ),
            "helm": read("helm", "--helm", "HELM", str.strip, lambda: "helm"),
            "kubectl": read("kubectl", "--kubectl", "KUBECTL", str.strip, lambda: "kubectl"),
            "remote_bases": read("remote_bases", "--remote-bases", "REMOTE_BASES", _truth, bool),
            "sops": read("sops", "HELMOPS_SOPS", "SOPS", str.strip, lambda: "sops"),
            "namespace": read(
                "namespace", "--namespace", "NAMESPACE", _namespace, lambda: "default"
            ),
            "watch_namespaces": read(
                "watch_namespaces", "--watch-namespace", "WATCH_NAMESPACE", _namespaces, tuple
            ),
            "kubeconfig": read(
                "kubeconfig",
                "--kubeconfig",
                "",
                str.strip,
                lambda: environment.get("KUBECONFIG", ""),
            ),
            "context": read("context", "--context", "CONTEXT", str.strip, str),
            "concurrency": read(
                "concurrency", "--concurrency", "CONCURRENCY", _count(1, 256), lambda: 8
            ),
            "grace_period": read(
                "grace_period", "--grace-period", "GRACE_PERIOD", _duration, lambda: _GRACE
            ),
            "cache_dir": read(
                "cache_dir",
                "--cache-dir",
                "CACHE_DIR",
                _directory,
                lambda: _home(environment, "CACHE", ".cache"),
            ),
            "cache_size": read(
                "cache_size", "--cache-size", "CACHE_SIZE", parse_size, lambda: _CACHE_SIZE
            ),
            "log_format": read(
                "log_format", "--log-format", "LOG_FORMAT", _one_of("text", "json"), lambda: "text"
            ),
            "log_level": read(
                "log_level", "--log-level", "LOG_LEVEL", _one_of(*_LEVELS), lambda: "info"
            ),
            "observe": read("observe", "--observe", "OBSERVE", _truth, bool),
            "allow_commands": read(
                "allow_commands", "--allow-commands", "ALLOW_COMMANDS", _truth, bool
            ),
        }
        told.complain()
        return cls(**settings)


class _Told:
    """Reads one setting after the other and collects what is wrong with them."""

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._options = options
        self._environment = environment
        self._problems: list[tuple[str, str]] = []

    def read(
        self,
        name: str,
        option: str,
        variable: str,
        read: Callable[[Any], _T],
        default: Callable[[], _T],
    ) -> Any:
        """The option, else HELMOPS_`variable`, else the default; None where that is wrong."""
        given = self._options.get(name)
        if given is not None and given != () and given != []:
            return self._tried(option, lambda: read(given))
        if variable and (text := self._environment.get(f"HELMOPS_{variable}", "").strip()):
            return self._tried(f"HELMOPS_{variable}", lambda: read(text))
        return self._tried(option, default)

    def complain(self) -> None:
        """Raise all that was wrong as one UsageError."""
        if len(self._problems) == 1:
            where, what = self._problems[0]
            raise UsageError(what, where=where)
        if self._problems:
            lines = "".join(f"\n  {where}: {what}" for where, what in self._problems)
            raise UsageError(f"{len(self._problems)} settings cannot be used:{lines}")

    def _tried(self, where: str, attempt: Callable[[], _T]) -> _T | None:
        try:
            return attempt()
        except UsageError as error:
            advice = f"; {error.next_step}" if error.next_step else ""
            self._problems.append((where, error.what + advice))
        except ValueError as error:
            self._problems.append((where, str(error)))
        return None


def _filenames(given: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """A variable holds one name a line; a name with a comma in it needs lines."""
    if isinstance(given, str):
        given = given.splitlines() if "\n" in given else given.split(",")
    return tuple(name.strip() for name in given if name.strip())


def _namespaces(given: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(_namespace(name) for name in names if name.strip()))


def _namespace(given: str) -> str:
    name = given.strip()
    if not _NAMESPACE.fullmatch(name):
        raise ValueError(
            f"{name!r} is no namespace: lower-case letters, digits and '-', at most 63"
        )
    return name


def _one_of(*words: str) -> Callable[[str], str]:
    def read(given: str) -> str:
        word = given.strip().lower()
        if word not in words:
            raise ValueError(f"{given!r} is not {', '.join(words[:-1])} or {words[-1]}")
        return word

    return read


def _count(least: int, most: int) -> Callable[[str | int], int]:
    def read(given: str | int) -> int:
        text = str(given).strip()
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return read


def parse_size(given: str | int) -> int:
    """Bytes, of a number with or without a unit: `500MiB`, `2GB`, `1024`. Raises ValueError."""
    found = _SIZE.fullmatch(str(given).strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"{given!r} is no size, as 500MiB or 2GiB is")
    return int(float(found[1]) * unit)


def _truth(given: str | bool) -> bool:
    word = str(given).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{given!r} is neither true nor false")
    return word in _TRUE


def _duration(given: str | timedelta) -> timedelta:
    # Imported here: the models cost a third of a second that most commands do not need.
    from helmops.model.declarations.base import parse_duration

    try:
        return parse_duration(given)
    except ValueError as error:
        raise ValueError(f"{given!r} {error}") from None


def _directory(given: str | Path) -> Path:
    return Path(given).expanduser().absolute()


def _state_file(environment: Mapping[str, str]) -> StateAddress:
    return StateAddress.of_file(_home(environment, "STATE", ".local/state") / "state.db")


def _home(environment: Mapping[str, str], kind: str, otherwise: str) -> Path:
    """Our directory below `$XDG_<kind>_HOME`; a relative one does not count (XDG's rule)."""
    named = environment.get(f"XDG_{kind}_HOME", "")
    if named.startswith("/"):
        return Path(named) / "helmops"
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise ValueError(
            f"must be given, as neither HOME nor XDG_{kind}_HOME names an absolute directory"
        )
    return Path(home) / otherwise / "helmops"
