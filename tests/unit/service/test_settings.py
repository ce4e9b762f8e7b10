from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import UsageError
from helmops.service.settings import Listen, Settings, parse_size

HOME = {"HOME": "/home/ops"}


def load(options: dict[str, Any] | None = None, **environment: str) -> Settings:
    return Settings.load(options or {}, {**HOME, **environment})


def test_what_nobody_says_has_defaults() -> None:
    settings = load()
    assert settings.filenames == ()
    assert settings.state.path == Path("/home/ops/.local/state/helmops/state.db")
    assert settings.cache_dir == Path("/home/ops/.cache/helmops")
    assert str(settings.listen) == "127.0.0.1:9640"
    assert settings.defaults == "safe"
    assert (settings.helm, settings.kubectl, settings.sops) == ("helm", "kubectl", "sops")
    assert settings.namespace == "default"
    assert settings.watch_namespaces == ()
    assert settings.concurrency == 8
    assert settings.grace_period == timedelta(seconds=30)
    assert (settings.log_format, settings.log_level) == ("text", "info")
    assert not settings.observe


def test_the_environment_is_understood() -> None:
    settings = load(
        HELMOPS_FILENAME="config/a, config/b",
        HELMOPS_STATE="postgresql://ops@db/state",
        HELMOPS_LISTEN="0.0.0.0:80",
        HELMOPS_DEFAULTS="flux",
        HELMOPS_HELM="/opt/helm",
        HELMOPS_KUBECTL="/opt/kubectl",
        HELMOPS_SOPS="/opt/sops",
        HELMOPS_NAMESPACE="prod",
        HELMOPS_WATCH_NAMESPACE="a,b, a",
        KUBECONFIG="/a:/b",
        HELMOPS_CONTEXT="kind",
        HELMOPS_CONCURRENCY="2",
        HELMOPS_GRACE_PERIOD="1m30s",
        HELMOPS_CACHE_DIR="/cache",
        HELMOPS_CACHE_SIZE="500MiB",
        HELMOPS_LOG_FORMAT="JSON",
        HELMOPS_LOG_LEVEL="debug",
        HELMOPS_OBSERVE="true",
    )
    assert settings.filenames == ("config/a", "config/b")
    assert settings.state.shown == "postgresql://db/state"
    assert settings.listen == Listen("0.0.0.0", 80)
    assert settings.defaults == "flux"
    assert settings.helm == "/opt/helm"
    assert (settings.kubectl, settings.sops) == ("/opt/kubectl", "/opt/sops")
    assert settings.namespace == "prod"
    assert settings.watch_namespaces == ("a", "b")
    assert (settings.kubeconfig, settings.context) == ("/a:/b", "kind")
    assert settings.concurrency == 2
    assert settings.grace_period == timedelta(seconds=90)
    assert settings.cache_dir == Path("/cache")
    assert settings.cache_size == 500 * 1024**2
    assert (settings.log_format, settings.log_level) == ("json", "debug")
    assert settings.observe
    assert not settings.allow_commands


def test_an_option_wins_over_the_environment() -> None:
    settings = load(
        {
            "filenames": ("config/c",),
            "listen": "127.0.0.1:1",
            "concurrency": 3,
            "observe": False,
            "kubeconfig": "/mine",
            "context": None,
        },
        HELMOPS_FILENAME="config/a",
        HELMOPS_LISTEN="nonsense",
        HELMOPS_CONCURRENCY="2",
        HELMOPS_OBSERVE="true",
        HELMOPS_CONTEXT="kind",
        KUBECONFIG="/theirs",
    )
    assert settings.filenames == ("config/c",)
    assert settings.listen.port == 1
    assert settings.concurrency == 3
    assert not settings.observe
    assert settings.kubeconfig == "/mine"
    assert settings.context == "kind"


def test_an_empty_variable_says_nothing() -> None:
    assert load(HELMOPS_LISTEN=" ", HELMOPS_FILENAME="") == load()


def test_file_names_are_lines_where_there_are_lines() -> None:
    assert load(HELMOPS_FILENAME="a,b\n c \n\n").filenames == ("a,b", "c")


def test_a_comma_in_an_option_is_part_of_the_name() -> None:
    assert load({"filenames": ["a,b"]}).filenames == ("a,b",)


def test_directories_follow_xdg_where_it_is_absolute() -> None:
    settings = load(XDG_STATE_HOME="/xdg/state", XDG_CACHE_HOME="relative")
    assert settings.state.path == Path("/xdg/state/helmops/state.db")
    assert settings.cache_dir == Path("/home/ops/.cache/helmops")


def test_without_a_home_the_state_must_be_named() -> None:
    with pytest.raises(UsageError, match="2 settings") as error:
        Settings.load({}, {})
    assert "--state: must be given" in str(error.value)
    assert "--cache-dir: must be given" in str(error.value)
    Settings.load({"state": "sqlite:////s.db", "cache_dir": "/c"}, {})


@pytest.mark.parametrize(("given", "allowed"), [("true", True), ("0", False), ("", False)])
def test_commands_are_allowed_only_on_request(given: str, allowed: bool) -> None:
    assert load(HELMOPS_ALLOW_COMMANDS=given).allow_commands is allowed
    assert load({"allow_commands": True}, HELMOPS_ALLOW_COMMANDS=given).allow_commands


def test_variables_that_kubernetes_sets_for_a_service_named_helmops_do_no_harm() -> None:
    assert load(HELMOPS_PORT="tcp://10.0.0.1:9640", HELMOPS_SERVICE_HOST="10.0.0.1") == load()


@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        ({"listen": "9640"}, {}, "--listen: '9640' is no HOST:PORT"),
        ({"listen": ":9640"}, {}, "names no host; write 127.0.0.1:9640"),
        ({"listen": "::1:9640"}, {}, "brackets"),
        ({"listen": "localhost:http"}, {}, "HOST:PORT"),
        ({"listen": "localhost:70000"}, {}, "HOST:PORT"),
        ({"state": "/var/lib/state.db"}, {}, "--state: "),
        ({"defaults": "fluxx"}, {}, "'fluxx' is not safe or flux"),
        ({}, {"HELMOPS_DEFAULTS": "x"}, "HELMOPS_DEFAULTS: "),
        ({"concurrency": 0}, {}, "from 1 to 256"),
        ({"concurrency": "-1"}, {}, "from 1 to 256"),
        ({"concurrency": "²"}, {}, "from 1 to 256"),
        ({"grace_period": "30"}, {}, "'30' is not a duration"),
        ({"namespace": "Prod"}, {}, "'Prod' is no namespace"),
        ({"watch_namespaces": ("a", "b_c")}, {}, "'b_c' is no namespace"),
        ({"log_format": "xml"}, {}, "text or json"),
        ({"log_level": "loud"}, {}, "debug, info, warning or error"),
        ({}, {"HELMOPS_OBSERVE": "maybe"}, "HELMOPS_OBSERVE: 'maybe' is neither true nor false"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(
    options: dict[str, Any], environment: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError) as error:
        load(options, **environment)
    assert says in str(error.value)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError, match="3 settings cannot be used") as error:
        load({"listen": "x", "concurrency": 0}, HELMOPS_STATE="x")
    assert len(str(error.value).splitlines()) == 4


def test_credentials_in_file_names_and_state_are_not_shown() -> None:
    settings = load(
        {
            "filenames": ("git+https://ops:hunter2@host/repo.git",),
            "state": "postgresql://ops:hunter2@db/state",
        }
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("text", ["127.0.0.1:9640", "[::1]:0", "localhost:80"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(Listen.parse(text)) == text


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("500MiB", 500 * 1024**2),
        ("2 GiB", 2 * 1024**3),
        ("2gb", 2 * 1000**3),
        ("1.5Ki", 1536),
    ],
)
def test_sizes_are_read_with_their_units(given: str, size: int) -> None:
    assert parse_size(given) == size


@pytest.mark.parametrize("given", ["", "much", "-1", "1 Xi", "1e9", "GiB"])
def test_what_is_no_size_is_said_so(given: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(given)
