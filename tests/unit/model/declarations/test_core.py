import base64

import pytest
from pydantic import ValidationError

from helmops.model.declarations import ConfigMap
from tests.unit.model.manifests import secret


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_secret_is_decoded_and_string_data_wins() -> None:
    read = secret(data={"a": encoded("one"), "b": encoded("two")}, stringData={"b": "three"})
    assert read.content == {"a": b"one", "b": b"three"}


def test_line_ends_in_base64_do_not_matter() -> None:
    text = encoded("x" * 100)
    assert secret(data={"a": f"{text[:76]}\n{text[76:]}\n"}).content == {"a": b"x" * 100}


def test_what_is_not_base64_is_refused_by_its_key_and_not_shown() -> None:
    with pytest.raises(ValidationError) as raised:
        secret(data={"token": "hunter2!"})
    assert "`data.token` is not base64" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_number_in_a_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError) as raised:
        secret(stringData={"pin": 12345})
    assert "12345" not in str(raised.value)


def test_nothing_prints_a_secret() -> None:
    read = secret(stringData={"token": "hunter2"}, data={"other": encoded("hunter3")})
    for text in (repr(read), str(read)):
        assert "hunter" not in text
        assert encoded("hunter3") not in text


def test_a_config_map_has_texts_and_bytes() -> None:
    read = ConfigMap.model_validate(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a"},
            "data": {"a": "é"},
            "binaryData": {"b": base64.b64encode(b"\xff").decode()},
        }
    )
    assert read.content == {"a": "é".encode(), "b": b"\xff"}
