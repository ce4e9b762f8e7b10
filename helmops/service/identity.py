"""Who acts: for the records and events that people read later."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """The user and machine that run this command, as `ada@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this user, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def process() -> str:
    """This very process, for the notes of actions that it begins."""
    return f"{socket.gethostname()}/{os.getpid()}"
