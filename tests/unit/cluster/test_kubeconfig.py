from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from helmops.cluster import kubeconfig as module
from helmops.cluster.kubeconfig import Connection, load_connection
from helmops.errors import UsageError

NOWHERE: dict[str, str] = {"HOME": "/nonexistent"}


def write(path: Path, name: str, *, current: bool = True, **user: Any) -> Path:
    """A kubeconfig with one context, cluster and user of that name."""
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443/"}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    if current:
        config["current-context"] = name
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_named_file_is_used_and_nothing_else(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "one"), write(tmp_path / "two", "two")
    found = load_connection(str(two), environ={"KUBECONFIG": str(one)})
    assert (found.context, found.server) == ("two", "https://two.example:6443")


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such kubeconfig"):
        load_connection(str(tmp_path / "none"), environ=NOWHERE)


def test_a_kubeconfig_that_this_user_may_not_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UsageError, match="config: cannot be read: Permission denied"):
        load_connection(str(tmp_path / "config"), environ=NOWHERE)


def test_of_several_files_the_first_to_set_something_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "first", "one", token="first")
    second = write(tmp_path / "second", "one", token="second")
    third = write(tmp_path / "third", "three", token="third")
    environ = {"KUBECONFIG": os.pathsep.join(map(str, [first, second, third]))}

    assert load_connection(environ=environ).token == "first"
    assert load_connection(context="three", environ=environ).token == "third"


def test_missing_files_of_the_variable_are_skipped(tmp_path: Path) -> None:
    here = write(tmp_path / "here", "one")
    environ = {"KUBECONFIG": os.pathsep.join([str(tmp_path / "gone"), str(here)])}
    assert load_connection(environ=environ).context == "one"


def test_the_home_directory_is_looked_at_last(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", "home")
    assert load_connection(environ={"HOME": str(tmp_path)}).context == "home"


def test_no_kubeconfig_at_all_says_where_was_looked() -> None:
    with pytest.raises(UsageError, match=r"/nonexistent/\.kube/config"):
        load_connection(environ=NOWHERE)


def test_an_unknown_context_names_those_that_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "one")
    with pytest.raises(UsageError, match=r"no context named 'two'.*there are: one"):
        load_connection(str(path), "two", NOWHERE)


def test_no_current_context_names_those_that_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "one", current=False)
    with pytest.raises(UsageError, match=r"no current-context.*there are: one"):
        load_connection(str(path), environ=NOWHERE)


def test_relative_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config", "one", **{"client-certificate": "me.crt", "client-key": "me.key"}
    )
    found = load_connection(str(path), environ=NOWHERE)
    assert found.certificate_file == str(tmp_path / "me.crt")
    assert found.key_file == str(tmp_path / "me.key")


def test_data_wins_over_a_file(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = write(
        tmp_path / "config",
        "one",
        **{"client-certificate": "me.crt", "client-certificate-data": data},
    )
    found = load_connection(str(path), environ=NOWHERE)
    assert (found.certificate_file, found.certificate_data) == ("", b"PEM")


def test_a_token_file_wins_over_a_token(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "one", token="old", tokenFile="token")
    found = load_connection(str(path), environ=NOWHERE)
    assert (found.token, found.token_file) == ("", str(tmp_path / "token"))


def test_impersonation_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        "one",
        **{"as": "jane", "as-groups": ["a", "b"], "as-user-extra": {"scope": ["x"]}},
    )
    assert load_connection(str(path), environ=NOWHERE).impersonate == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-scope", "x"),
    )


def test_a_user_with_a_plugin_keeps_what_the_client_needs(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "one", exec={"command": "./login", "apiVersion": "v1"})
    plugin = load_connection(str(path), environ=NOWHERE).plugin
    assert plugin is not None
    assert plugin["users"][0]["user"]["exec"]["command"] == str(tmp_path / "login")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("users: [", "not YAML"),
        ("- a list", "not a kubeconfig"),
        ("current-context: x\nclusters: [{cluster: {}}]", "has no name"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]",
            "no cluster named 'c'",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
            "clusters: [{name: c, cluster: {server: 'ftp://x'}}]",
            "no usable server",
        ),
    ],
)
def test_a_broken_kubeconfig_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_connection(str(path), environ=NOWHERE)


def test_what_is_not_yaml_is_not_quoted_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("users:\n- user:\n    token: s3cret: [\n")
    with pytest.raises(UsageError) as raised:
        load_connection(str(path), environ=NOWHERE)
    assert "s3cret" not in str(raised.value)
    assert f"{path}:3" in str(raised.value)


def test_a_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("helmops\n")
    monkeypatch.setattr(module, "_SERVICE_ACCOUNT", tmp_path)
    environ = {**NOWHERE, "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = load_connection(environ=environ)
    assert found.server == "https://[fd00::1]:443"
    assert (found.context, found.namespace) == ("in-cluster", "helmops")
    assert found.token_file == str(tmp_path / "token")


def test_a_pod_without_a_token_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(UsageError, match="automountServiceAccountToken"):
        load_connection(environ={**NOWHERE, "KUBERNETES_SERVICE_HOST": "10.0.0.1"})


def test_the_repr_of_a_connection_shows_no_credential() -> None:
    connection = Connection(
        "https://x", token="s3cret", password="s3cret", key_data=b"s3cret", username="s3cret"
    )
    assert "s3cret" not in repr(connection)


def test_a_ca_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="the CA or client certificate cannot be used"):
        Connection("https://x", context="one", ca_data="no PEM").tls_context()


def test_a_plain_http_server_needs_no_tls() -> None:
    assert Connection("http://127.0.0.1:8001").tls_context() is None
