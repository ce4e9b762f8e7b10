"""Where the local cluster keeps things: nothing of it is inside the checkout."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
MODULES = PACKAGE / "modules"


def cache() -> Path:
    """What can be built or fetched again: binaries, keyed by their pins."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "helmops" / "devcluster"


def state(name: str) -> Path:
    """The folder of the cluster called `name`: its data, keys, logs and process ids."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "helmops" / "devcluster" / name
