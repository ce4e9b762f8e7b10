"""`config/examples` is what people copy: it must be read, and be acted on."""

import re
from pathlib import Path

import pytest

from helmops.model.declaration_set import DeclarationSet, read_declarations, unsupported
from helmops.model.releases import DeclarationKey
from helmops.sources.directory import DeclarationDirectory

EXAMPLES = Path(__file__).resolve().parents[3] / "config" / "examples"


@pytest.fixture(scope="module")
def examples() -> DeclarationSet:
    return read_declarations(DeclarationDirectory(str(EXAMPLES), label="examples").read().files)


def test_every_example_is_read(examples: DeclarationSet) -> None:
    assert [str(error) for error in examples.errors] == []
    assert examples.complete
    assert examples.ignored == {}
    assert sorted(str(key) for key in examples.releases) == [
        "hello/hello",
        "platform/ingress",
        "web/database",
        "web/gateway",
        "web/shop",
    ]


def test_every_example_is_acted_on(examples: DeclarationSet) -> None:
    for key in examples.releases:
        assert examples.unsupported(key) == ()
    for provider in examples.providers.values():
        assert unsupported(provider) == ()


def test_every_source_of_an_example_is_declared(examples: DeclarationSet) -> None:
    for release in examples.releases.values():
        examples.source_of(release)


def test_the_policies_of_the_examples_add_up(examples: DeclarationSet) -> None:
    shop = examples.policy_for(DeclarationKey("web", "shop"))
    assert (shop.mode, shop.upgrade.allow) == ("enforce", "minor")
    assert [check.name for check in shop.verify.checks] == ["answers", "has-replicas"]
    assert examples.policy_for(DeclarationKey("web", "database")).mode == "observe"


def test_every_file_is_listed_in_the_readme() -> None:
    listed = set(re.findall(r"^\| `([^`]+)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    present = {
        path.name + ("/" if path.is_dir() else "")
        for path in EXAMPLES.iterdir()
        if path.name != "README.md"
    }
    assert listed == present
