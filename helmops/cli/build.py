"""`helmops build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.session import run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.declared import DeclarationSet, Declared
    from helmops.service.settings import Settings

#: Where a declaration came from: `file:line`, and the Kustomizations that brought it out.
ORIGIN = "helmops.dev/origin"
BUILT_BY = "helmops.dev/built-by"

_HIDDEN = "***"


@click.command()
@options.filename
@options.namespace
@options.cluster
@click.option(
    "--output",
    "-o",
    type=click.Choice(["yaml", "json", "name"]),
    default="yaml",
    show_default=True,
    help="How to print.",
)
def build(output: str, **settings: Any) -> None:
    """Print the declarations as helmops understands them.

    Kustomizations are built and followed, variables substituted, namespaces filled in. Each
    document has the file and line that it came from in the annotation helmops.dev/origin. Values of
    Secrets are not shown. A cluster is asked only for variables that are not declared.

    Status 0: all can be read. 2: some cannot.
    """
    import gc

    gc.disable()  # the command ends before collecting would pay: a quarter of its time
    try:
        status = run_async(_build(settings_of(**settings), output))
    finally:
        gc.enable()
    raise click.exceptions.Exit(status)


async def _build(settings: Settings, output: str) -> int:
    from helmops.reconcile.secrets import texts_of
    from helmops.service.reading import declared_only

    secret: set[str] = set()
    declared = await declared_only(settings, lambda data: secret.update(texts_of(data)))
    for error in declared.errors:
        click.echo(f"helmops: {error}", err=True)
    hide = _Hiding(secret)
    manifests = [hide.in_manifest(_manifest(each)) for each in _all(declared)]
    click.echo(_as_text(manifests, output), nl=bool(manifests) or output == "json")
    if declared.ignored:
        others = ", ".join(f"{count} {kind}" for kind, count in declared.ignored.items())
        click.echo(f"left alone: {others}", err=True)
    return 2 if declared.errors else 0


def _all(declared: DeclarationSet) -> Iterator[Declared[Any]]:
    """Every declaration that can be used, by kind and name: the same order each time."""
    for group in (
        declared.releases,
        declared.sources,
        declared.policies,
        declared.config_maps,
        declared.secrets,
        declared.alerts,
        declared.providers,
        declared.receivers,
        declared.kustomizations,
    ):
        yield from sorted(group.values(), key=lambda each: (each.resource.kind, each.resource.key))


def _manifest(each: Declared[Any]) -> dict[str, Any]:
    manifest = each.manifest
    metadata = dict(manifest["metadata"])
    annotations = dict(metadata.get("annotations") or {}) | {ORIGIN: each.where}
    built_by = each.file.built_by
    if built_by is not None and built_by.chain:
        annotations[BUILT_BY] = " ".join(str(key) for key in built_by.chain)
    metadata["annotations"] = annotations
    return {**manifest, "metadata": metadata}


class _Hiding:
    """Puts asterisks in place of what is secret."""

    def __init__(self, texts: set[str]) -> None:
        self._texts = sorted(texts, key=len, reverse=True)

    def in_manifest(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """A manifest without the values of a Secret, and without those that came from one."""
        if manifest["kind"] == "Secret":
            hidden = {
                name: dict.fromkeys(manifest[name], _HIDDEN)
                for name in ("data", "stringData")
                if isinstance(manifest.get(name), Mapping)
            }
            return {**manifest, **hidden}
        if not self._texts:
            return manifest
        found = self._hidden(manifest)
        return found if isinstance(found, dict) else manifest

    def _hidden(self, value: Any) -> Any:
        match value:
            case dict():
                return {key: self._hidden(inner) for key, inner in value.items()}
            case list():
                return [self._hidden(inner) for inner in value]
            case str():
                for text in self._texts:
                    value = value.replace(text, _HIDDEN)
                return value
            case _:
                return _HIDDEN if str(value) in self._texts else value


def _as_text(manifests: list[dict[str, Any]], output: str) -> str:
    if output == "json":
        import json

        whole = {"apiVersion": "v1", "kind": "List", "items": manifests}
        return json.dumps(whole, indent=2, ensure_ascii=False)
    if output == "name":
        return "\n".join(
            f"{each['kind']}/{each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in manifests
        )
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump_all(manifests, Dumper=dumper, sort_keys=False, allow_unicode=True, width=4096)
    return str(text).rstrip("\n")
