from __future__ import annotations

import getpass
import os
import socket

import pytest

from helmops.service import identity


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")


def test_a_person_is_a_user_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert identity.who() == "ada@laptop"


@pytest.mark.parametrize("error", [KeyError("uid not found: 65532"), OSError("no such user")])
def test_a_user_without_a_name_is_a_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As in containers; Python 3.13 raises OSError where KeyError was before."""

    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(os, "getuid", lambda: 65532)
    assert identity.who() == "65532@laptop"


def test_a_process_is_a_number_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 42)
    assert identity.process() == "laptop/42"
