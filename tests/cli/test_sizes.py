"""Sizes on the command line."""

import pytest

from homebound.block._names import parse_size
from homebound.cli._sizes import show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512", 512),
        ("64K", 65536),
        ("64k", 65536),
        ("1.5G", 3 << 29),
        ("1Gi", 1 << 30),
        ("2TiB", 2 << 40),
        ("7E", 7 << 60),
        ("10 MB", 10 << 20),
    ],
)
def test_sizes_people_write(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "1X", "-1", "0", "0.3", "1e9", "1,5G", "nan", "8E", "100E", "9" * 5000, "1iB"]
)
def test_an_invalid_size_is_named(text: str):
    with pytest.raises(ValueError, match=r"size|bytes") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1025, "1.0 KiB"),
        (3 << 29, "1.5 GiB"),
        (64 << 20, "64 MiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str):
    assert show_size(size) == text
