"""What a module's zip must be; h1 as go.sum has it; and zips that somebody made on purpose."""

from __future__ import annotations

import hashlib
import io
import struct
import time
import zipfile
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.modules import GRAPH, Module, zipped
from mxart.repos.go.zips import MAX_SMALL, MAX_ZIP, BadModule, check_zip, mod_hash

PREFIX = "example.com/a@v1.0.0/"
MODULE = Module("example.com/a", "v1.0.0")


def judge(data: bytes, path: str = "example.com/a", version: str = "v1.0.0") -> str:
    return check_zip(io.BytesIO(data), len(data), path, version)


def of(*names: str, data: bytes = b"x") -> bytes:
    return zipped({PREFIX + name: data for name in names})


def test_the_hash_of_a_go_mod_is_that_of_go_sum() -> None:
    """Lines of real go.sum files."""
    quote = b'module "rsc.io/quote"\n\nrequire "rsc.io/sampler" v1.3.0\n'
    check = b"module gopkg.in/check.v1\n\ngo 1.11\n\nrequire github.com/kr/pretty v0.2.1\n"
    known = {
        b"module github.com/russross/blackfriday\n": "h1:JO/DiYxRf+HjHt06OyowR9PTA263kcR/rfWxYHBV53g=",
        quote: "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=",
        check: "h1:JHkPIbrfpd72SG/EVd6muEfDQjcINNoR0C8j2r3qZ4Q=",
    }
    for data, expected in known.items():
        assert mod_hash(data) == expected


@pytest.mark.parametrize("module", GRAPH, ids=lambda module: module.version)
def test_the_zips_of_modules_are_taken(module: Module) -> None:
    lines = sorted(
        f"{hashlib.sha256(data).hexdigest()}  {module.path}@{module.version}/{name}\n".encode()
        for name, data in module.files.items()
    )
    lines.sort(key=lambda line: line[66:])
    expected = "h1:" + b64encode(hashlib.sha256(b"".join(lines)).digest()).decode()
    assert judge(module.zip, module.path, module.version) == expected


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4}){0,2}\.go", fullmatch=True), st.binary(max_size=99)))
def test_how_it_is_packed_does_not_matter(files: dict[str, bytes]) -> None:
    named = {PREFIX + name: data for name, data in files.items()}
    backwards = dict(reversed(named.items()))
    assert judge(zipped(named)) == judge(zipped(backwards, zipfile.ZIP_STORED))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["../../etc/passwd"], "no file name"),
        (["a/../../b"], "no file name"),
        (["/a"], "is empty"),
        (["a//b"], "is empty"),
        (["a/./b"], "ends with a dot"),
        (["a:b"], "characters"),
        (["aux.go"], "Windows"),
        (["go.mod", "sub/go.mod"], "one go.mod"),
        (["GO.MOD"], "one go.mod"),
        (["sub/Go.Mod"], "one go.mod"),
        (["readme", "README"], "differ in case only"),
        (["Dir/a", "dir/b"], "differ in case only"),
        (["straße.go", "STRAẞE.go"], "differ in case only"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b", "a"], "both a file and a folder"),
    ],
)
def test_names_that_break_the_rules(names: list[str], why: str) -> None:
    with pytest.raises(BadModule, match=why):
        judge(of(*names))


def test_a_name_that_is_there_twice() -> None:
    archive = zipped({PREFIX + "a": b"1", PREFIX + "b": b"2"}, zipfile.ZIP_STORED)
    archive = archive.replace((PREFIX + "b").encode(), (PREFIX + "a").encode())
    with pytest.raises(BadModule, match="there twice"):
        judge(archive)


def test_folders_may_be_there_but_hold_nothing_themselves() -> None:
    assert judge(zipped({PREFIX: b"", PREFIX + "a/": b"", PREFIX + "a/b": b"x"}, zipfile.ZIP_STORED))
    with pytest.raises(BadModule, match="folder with content"):
        judge(zipped({PREFIX + "a/": b"xyz"}, zipfile.ZIP_STORED))


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("example.com/a", "v1.0.1"),
        ("example.com/b", "v1.0.0"),
        ("example.com/A", "v1.0.0"),
        ("example.com/a/v2", "v2.0.0"),
    ],
)
def test_the_zip_of_another_module_or_version(path: str, version: str) -> None:
    with pytest.raises(BadModule, match="has to begin with"):
        judge(MODULE.zip, path, version)


def test_a_symbolic_link() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(PREFIX + "link")
        info.create_system = 3
        info.external_attr = 0o120777 << 16
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(BadModule, match="symbolic link"):
        judge(buffer.getvalue())


def test_sizes_at_their_limits() -> None:
    assert judge(of("LICENSE", data=bytes(MAX_SMALL)))
    for name in ("LICENSE", "go.mod"):
        with pytest.raises(BadModule, match=f"{name} has {MAX_SMALL + 1} bytes"):
            judge(of(name, data=bytes(MAX_SMALL + 1)))
    assert judge(of("sub/LICENSE", data=bytes(MAX_SMALL + 1)))
    with pytest.raises(BadModule, match="at most"):
        check_zip(io.BytesIO(), MAX_ZIP + 1, "example.com/a", "v1.0.0")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """Each of its names promises a little, all of them together more than a module may have."""
    bomb = bytearray(of(*(f"f{n}" for n in range(6)), data=bytes(1000)))
    patch_sizes(bomb, 100 << 20)
    began = time.perf_counter()
    with pytest.raises(BadModule, match="unpacked"):
        judge(bytes(bomb))
    assert time.perf_counter() - began < 1


def patch_sizes(archive: bytearray, size: int) -> None:
    """Write another unpacked size into every entry of the directory."""
    at = archive.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", archive, at + 24, size)
        at = archive.find(b"PK\x01\x02", at + 4)


@pytest.mark.parametrize(("size", "why"), [(999, "larger than the 999 bytes"), (1001, "has 1000 bytes, not the 1001")])
def test_a_size_that_is_not_the_real_one(size: int, why: str) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        archive = bytearray(zipped({PREFIX + "a": bytes(1000)}, method))
        patch_sizes(archive, size)
        with pytest.raises(BadModule, match=why):
            judge(bytes(archive))


def test_a_file_that_swells_is_stopped_at_its_promise() -> None:
    """A lot of zeros behind a promise of one byte: no more than a piece of it is ever unpacked."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(pack.compress(bytes(1 << 20)) for _ in range(100)) + pack.flush()
    archive = bytearray(zipped({PREFIX + "a": packed}, zipfile.ZIP_STORED))
    for at, offset in ((0, 8), (archive.find(b"PK\x01\x02"), 10)):
        struct.pack_into("<H", archive, at + offset, 8)
    patch_sizes(archive, 1)
    began = time.perf_counter()
    with pytest.raises(BadModule, match="larger than the 1 bytes"):
        judge(bytes(archive))
    assert time.perf_counter() - began < 1


def test_a_hundred_thousand_files_are_taken_and_one_more_is_not() -> None:
    names = [f"{n // 1000}/{n}" for n in range(100_001)]
    assert judge(zipped({PREFIX + name: b"" for name in names[:100_000]}, zipfile.ZIP_STORED)).startswith("h1:")
    with pytest.raises(BadModule, match="100001 files"):
        judge(zipped({PREFIX + name: b"" for name in names}, zipfile.ZIP_STORED))


def test_deep_names_cost_no_more_than_they_are_long() -> None:
    deep = zipped({PREFIX + "a/" * 2_000 + f"f{n}": b"" for n in range(300)}, zipfile.ZIP_STORED)
    began = time.perf_counter()
    assert judge(deep)
    assert time.perf_counter() - began < 5


def test_a_changed_byte_is_noticed_or_changes_the_hash() -> None:
    archive = zipped({PREFIX + "a": b"some content", PREFIX + "go.mod": b"module example.com/a\n"}, zipfile.ZIP_STORED)
    right = judge(archive)
    ignored = 0  # times, versions and the like, which no reader looks at
    for at in range(len(archive)):
        changed = bytearray(archive)
        changed[at] ^= 0x41
        try:
            found = judge(bytes(changed))
        except BadModule:
            continue
        if found == right:
            ignored += 1
    assert ignored < 80


def test_every_part_of_an_archive_is_no_archive() -> None:
    archive = MODULE.zip
    for length in range(len(archive)):
        with pytest.raises(BadModule):
            judge(archive[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html>", b"PK\x05\x06", MODULE.zip + b"x", b"x" + MODULE.zip, MODULE.zip + MODULE.zip,
        MODULE.zip + b"PK\x05\x06" + bytes(18),
    ],
)  # fmt: skip
def test_what_two_readers_might_take_for_different_archives(data: bytes) -> None:
    with pytest.raises(BadModule):
        judge(data)


@given(st.binary(max_size=200))
def test_nothing_but_a_refusal_comes_of_any_bytes(data: bytes) -> None:
    with pytest.raises(BadModule):
        judge(data + b"PK\x05\x06" + data)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([f"{'a' * 4096}"], "longer than the 4096 bytes"),
        (["ü" * 2048], "longer than the 4096 bytes"),
        ([f"{number}/" + "/".join(["d"] * 2000) for number in range(300)], "more than 500000 files and folders"),
        (["/".join(["d"] * 2000) + f"/{number}" for number in range(1100)], "names of too many elements"),
    ],
    ids=["long", "long in bytes", "many folders", "many elements"],
)
def test_names_that_cost_more_than_a_module_has_are_refused_soon(names: list[str], why: str) -> None:
    data = of(*names)
    began = time.thread_time()
    with pytest.raises(BadModule, match=why):
        judge(data)
    assert time.thread_time() - began < 10


def test_files_that_lie_over_each_other_are_refused() -> None:
    """Each quotes the next one's head and goes on into one long stretch of nothing: work for years in little room."""
    nothing = b"\x00\x00\x00\xff\xff" * 200_000 + b"\x03\x00"  # deflate's empty blocks, and the last one
    body, heads = nothing, []
    for number in reversed(range(50)):
        name = f"{PREFIX}f{number:02}".encode()
        content = struct.pack("<BHH", 0, len(heads[-1]), len(heads[-1]) ^ 0xFFFF) if heads else b""
        head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 0, 0, 0, len(name), 0) + name
        body = head + content + body
        heads.append(head)
    directory, at = b"", 0
    for number in range(50):
        name = f"{PREFIX}f{number:02}".encode()
        packed = len(body) - at - len(heads[-1])
        fields = (20, 20, 0, 8, 0, 33, 0, packed, 50, len(name), 0, 0, 0, 0, 0, at)
        directory += struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *fields) + name
        at += len(heads[-1]) + 5
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(directory), len(body), 0)
    with pytest.raises(BadModule, match="overlap"):
        judge(body + directory + end)
