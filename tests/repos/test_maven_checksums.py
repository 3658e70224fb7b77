"""Checksums: computed in one pass, kept as one text, and read as leniently as they are written."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.maven import checksums
from mxart.repos.maven.coordinates import ALGORITHMS, Algorithm

DATA = b"some bytes"
MD5 = hashlib.md5(DATA).hexdigest()
SHA1 = hashlib.sha1(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()


def grouped(text: str, size: int) -> str:
    return " ".join(text[at : at + size] for at in range(0, len(text), size))


@given(st.binary(max_size=3000))
def test_the_same_over_bytes_and_over_a_file(data: bytes) -> None:
    sums = checksums.of(data)
    assert checksums.of_file(io.BytesIO(data + b"more"), len(data)) == checksums.kept(sums)
    assert checksums.recall(checksums.kept(sums), sums.sha256) == sums
    for algorithm in ALGORITHMS:
        assert sums.get(algorithm) == hashlib.new(algorithm, data).hexdigest()


def test_a_large_file_is_read_in_pieces() -> None:
    data = bytes(range(256)) * 10_000
    assert checksums.of_file(io.BytesIO(data), len(data)) == checksums.kept(checksums.of(data))


def test_a_file_that_became_shorter_has_no_checksum() -> None:
    with pytest.raises(OSError, match="shorter"):
        checksums.of_file(io.BytesIO(b"short"), 6)


@pytest.mark.parametrize("text", ["", "sha1:abc", "h1:xyz=", "md5:1 sha1:2 sha512:3", "a b c", ":::"])
def test_what_is_no_such_text_tells_nothing(text: str) -> None:
    assert checksums.recall(text, "0" * 64) is None


def test_the_fields_that_clients_read() -> None:
    sums = checksums.of(DATA)
    assert dict(checksums.fields(sums)) == {
        "x-checksum-md5": MD5, "x-checksum-sha1": SHA1, "x-checksum-sha256": sums.sha256,
        "x-checksum-sha512": SHA512,
    }  # fmt: skip


WRITTEN: list[tuple[str, Algorithm]] = [
    (SHA1, "sha1"),
    (SHA1 + "\n", "sha1"),
    (SHA1.upper() + "\r\n", "sha1"),
    ("\ufeff" + SHA1, "sha1"),
    (f"{SHA1}  app-1.0.jar\n", "sha1"),
    (f"{SHA1} *app-1.0.jar\n", "sha1"),
    (f"SHA1(app-1.0.jar)= {SHA1}", "sha1"),
    (f"MD5 (app-1.0.jar) = {MD5}\n", "md5"),
    (f"app-1.0.jar: {SHA1}", "sha1"),
    (f"app-1.0.jar: {grouped(SHA1.upper(), 8)}", "sha1"),
    (f"/home/x/app-1.0.jar:\n{grouped(MD5, 2)}\n", "md5"),
    (grouped(SHA1, 4), "sha1"),
    (f"{SHA512}\n", "sha512"),
    (f"{SHA1} {SHA1}", "sha1"),
    (f"# made by x\n{SHA1}", "sha1"),
]


@pytest.mark.parametrize(("text", "algorithm"), WRITTEN, ids=range(len(WRITTEN)))
def test_what_others_write(text: str, algorithm: Algorithm) -> None:
    assert checksums.read(text.encode(), algorithm) == {"md5": MD5, "sha1": SHA1, "sha512": SHA512}[algorithm]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "<html>not found</html>",
        MD5,
        SHA1[:-1],
        SHA1 + "0",
        f"{SHA1} {SHA1[::-1]}",
        "x" * 40,
        SHA1 + "\n" * 5000,
    ],
    ids=range(9),
)
def test_what_tells_no_checksum(text: str) -> None:
    assert checksums.read(text.encode(), "sha1") == ""


@given(st.binary(max_size=200), st.sampled_from(ALGORITHMS))
def test_any_bytes_are_read_without_trouble(data: bytes, algorithm: Algorithm) -> None:
    found = checksums.read(data, algorithm)
    assert not found or checksums.is_hex(found, algorithm)
