"""`make bench`: all figures in one table, each beside its peer where that can run."""

from __future__ import annotations

from benchmarks import releases
from benchmarks.table import render

if __name__ == "__main__":
    print(render(releases.rows()))
