from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from helmops.cluster.credentials import Credentials, run_plugin
from helmops.cluster.kubeconfig import Connection, load_connection
from helmops.errors import AccessDenied


async def test_a_token_becomes_a_bearer_header() -> None:
    headers = await Credentials(Connection("https://x", token="t")).headers()
    assert headers == (("Authorization", "Bearer t"),)


async def test_user_and_password_become_basic_authentication() -> None:
    headers = await Credentials(Connection("https://x", username="me", password="pw")).headers()
    assert headers == (("Authorization", "Basic bWU6cHc="),)


async def test_impersonation_comes_with_every_request() -> None:
    connection = Connection("https://x", impersonate=(("Impersonate-User", "jane"),))
    assert await Credentials(connection).headers() == (("Impersonate-User", "jane"),)


async def test_a_token_file_is_read_again_when_its_token_was_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    credentials = Credentials(Connection("https://x", token_file=str(token)))
    assert (await credentials.headers())[0][1] == "Bearer one"
    token.write_text("two\n")
    assert (await credentials.headers())[0][1] == "Bearer one"
    assert (await credentials.headers(was_refused=True))[0][1] == "Bearer two"


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (" \n", "is empty")])
async def test_a_token_file_without_a_token_is_said(
    tmp_path: Path, content: str | None, said: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    with pytest.raises(AccessDenied, match=said):
        await Credentials(Connection("https://x", token_file=str(token))).headers()


def with_plugin(folder: Path, program: str) -> Connection:
    """A connection whose user has an exec plugin that runs this Python."""
    script = folder / "login.py"
    script.write_text(program)
    user: dict[str, Any] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "interactiveMode": "Never",
        }
    }
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "https://x"}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return load_connection(str(path), environ={})


GIVES_TOKEN = """
import json, pathlib
count = pathlib.Path(__file__).with_name("count")
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": f"token-{number}"}}))
"""


async def test_a_plugin_gives_the_token_and_is_run_again_when_it_was_refused(
    tmp_path: Path,
) -> None:
    connection = await run_plugin(with_plugin(tmp_path, GIVES_TOKEN))
    credentials = Credentials(connection)
    assert (await credentials.headers())[0][1] == "Bearer token-1"
    assert (await credentials.headers())[0][1] == "Bearer token-1"
    assert (await credentials.headers(was_refused=True))[0][1] == "Bearer token-2"
    assert (await credentials.headers())[0][1] == "Bearer token-2"


@pytest.mark.parametrize("program", ["raise SystemExit('s3cret')", "print('s3cret')"])
async def test_a_plugin_that_fails_is_said_without_its_output(tmp_path: Path, program: str) -> None:
    with pytest.raises(AccessDenied, match="the credential plugin") as raised:
        await run_plugin(with_plugin(tmp_path, program))
    assert "s3cret" not in str(raised.value)
