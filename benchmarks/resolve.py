"""What resolving costs: ranges, versions, values and digests. `python -m benchmarks.resolve`.

Prints one JSON object a line: what, how long (milliseconds of CPU, the best of several runs), and
the same done by a peer where there is one.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import semver
import yaml

from helmops.model.charts import ChartVersion
from helmops.resolve.constraint import Constraint, ConstraintError
from helmops.resolve.digest import config_digest
from helmops.resolve.selection import choose
from helmops.resolve.values import merge_values, parse_values
from helmops.resolve.version import Version

TEXTS = [
    f"{i % 40}.{i // 40 % 50}.{i % 7}" + (f"-rc.{i % 12}" if i % 7 == 3 else "")
    for i in range(5000)
]
VALUES_FILE = "".join(
    f"component{i}:\n  enabled: yes\n  image: {{repository: example/c{i}, tag: 1.{i}.0}}\n"
    f"  resources:\n    limits: {{cpu: 100m, memory: 128Mi}}\n  env:\n"
    + "".join(f"  - name: VAR_{j}\n    value: text {j}\n" for j in range(10))
    for i in range(100)
)


def best(run: Callable[[], Any], times: int = 5) -> float:
    """Milliseconds of CPU of the best of several runs."""
    took = []
    for _ in range(times):
        started = time.process_time()
        run()
        took.append(time.process_time() - started)
    return round(min(took) * 1000, 2)


def hardest_range() -> None:
    try:
        Constraint.parse("1 - 2 " * 85 + "!")
    except ConstraintError:
        return
    raise AssertionError("that is no range")


def rows() -> Iterator[dict[str, Any]]:
    """One measurement each."""
    versions = [Version.parse(text) for text in TEXTS]
    peers = [semver.Version.parse(text) for text in TEXTS]
    entries = [ChartVersion("c", text) for text in TEXTS]
    constraint = Constraint.parse(">=1.2.0 <30, !=3.1.4 || ^35.1 || 38.x")
    values = parse_values(VALUES_FILE, "values.yaml")

    yield {
        "what": "parse 5,000 versions",
        "ms": best(lambda: [Version.parse(text) for text in TEXTS]),
        "peer": {"semver": best(lambda: [semver.Version.parse(text) for text in TEXTS])},
    }
    yield {
        "what": "sort 5,000 versions",
        "ms": best(lambda: sorted(versions, key=lambda version: version.key)),
        "peer": {"semver": best(lambda: sorted(peers), times=2)},
    }
    yield {
        "what": "check 5,000 versions against a range of three groups",
        "ms": best(lambda: [constraint.matches(version) for version in versions]),
    }
    yield {
        "what": "choose among 5,000 entries of an index",
        "ms": best(lambda: choose(entries, "^30", deployed="30.1.1", allow="patch"), times=3),
    }
    yield {"what": "refuse a range of 511 characters", "ms": best(hardest_range)}
    yield {
        "what": f"read a values file of {len(VALUES_FILE) // 1000} KB",
        "ms": best(lambda: parse_values(VALUES_FILE, "values.yaml"), times=3),
        "peer": {
            "PyYAML CSafeLoader": best(
                lambda: yaml.load(VALUES_FILE, Loader=yaml.CSafeLoader), times=3
            )
        },
    }
    yield {"what": "merge those values three times", "ms": best(lambda: merge_values([values] * 3))}
    yield {"what": "digest of those values", "ms": best(lambda: config_digest(values))}


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
