"""ConfigMap and Secret documents, for `valuesFrom` and credentials without a cluster."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator

from helmops.model.declarations.base import Flag, Resource, Text, TextMap, refuse


class ConfigMap(Resource):
    """Values or settings that are no secret."""

    api_group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    data: TextMap = Field(default_factory=dict, repr=False, description="Texts by key.")
    binary_data: TextMap = Field(
        default_factory=dict, repr=False, description="Bytes by key, in base64."
    )
    immutable: Flag = Field(default=False, description="Accepted; not used.")

    _content: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _decode(self) -> Self:
        self._content.update({key: text.encode() for key, text in self.data.items()})
        self._content.update(_decoded(self.binary_data, "binaryData"))
        return self

    @property
    def content(self) -> Mapping[str, bytes]:
        """What is in it, by key."""
        return self._content


class Secret(Resource):
    """Values or credentials; nothing prints what is in it."""

    api_group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    type: Text = Field(default="Opaque", description="Type of the Secret; not used.")
    data: TextMap = Field(default_factory=dict, repr=False, description="Bytes by key, in base64.")
    string_data: TextMap = Field(
        default_factory=dict, repr=False, description="Texts by key; they win over `data`."
    )
    immutable: Flag = Field(default=False, description="Accepted; not used.")

    _content: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _decode(self) -> Self:
        self._content.update(_decoded(self.data, "data"))
        self._content.update({key: text.encode() for key, text in self.string_data.items()})
        return self

    @property
    def content(self) -> Mapping[str, bytes]:
        """What is in it, decoded, by key."""
        return self._content


def _decoded(encoded: Mapping[str, str], field: str) -> dict[str, bytes]:
    content = {}
    for key, text in encoded.items():
        try:
            # Go's decoder passes over line ends, and over nothing else.
            plain = text.replace("\n", "").replace("\r", "")
            content[key] = base64.b64decode(plain, validate=True)
        except (binascii.Error, ValueError):
            # Without the cause: it would carry the text.
            raise refuse(f"`{field}.{key}` is not base64") from None
    return content
