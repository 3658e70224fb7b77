"""What a file must be: pages, empty files and halves of files are not taken for jars and POMs, whatever the status."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.maven.checks import BadFile, check_large, check_pom, check_published, check_small, is_small, read_pom
from mxart.repos.maven.coordinates import FilePath, file_path

POM = b"""<?xml version="1.0"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId>
  <artifactId>app</artifactId>
  <version>1.0</version>
  <dependencies><dependency><groupId>x</groupId><artifactId>y</artifactId><version>2</version></dependency></dependencies>
</project>
"""
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"


def place(extension: str, version: str = "1.0", value: str = "1.0") -> FilePath:
    return file_path(f"com/example/app/{version}/app-{value}.{extension}")


def jar() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    return file.getvalue()


def large(extension: str, data: bytes) -> None:
    check_large(place(extension), io.BytesIO(data), len(data))


def test_what_is_right() -> None:
    check_small(place("pom"), POM)
    check_small(place("jar.asc"), b"-----BEGIN PGP SIGNATURE-----\n...")
    check_small(place("module"), b'{"formatVersion": "1.1"}')
    check_small(place("jar.sigstore.json"), b"{}")
    check_small(place("xml"), b"\xef\xbb\xbf<features/>")
    check_small(place("xml"), '<?xml version="1.0"?><a/>'.encode("utf-16"))
    large("jar", jar())
    large("jar", b"#!/bin/sh\nexec java -jar $0\n" + jar())
    large("zip", b"PK\x05\x06" + bytes(18))  # an empty archive
    large("tar.gz", b"\x1f\x8b\x08" + bytes(20))
    large("txt", b"")
    large("html", PAGE)
    large("so", b"\x7fELF")


@pytest.mark.parametrize(
    ("extension", "small"),
    [("pom", True), ("jar.asc", True), ("asc", True), ("module", True), ("jar.sigstore.json", True), ("xml", True),
     ("tar.gz.asc", True), ("jar.minisig", True), ("jar", False), ("json", False), ("tar.gz", False), ("xpom", False),
     ("jar.xml", False), ("", False)],
)  # fmt: skip
def test_which_files_are_small(extension: str, small: bool) -> None:
    assert is_small(extension) == small


SMALL = {
    "an empty POM": ("pom", b"", "empty"),
    "a blank POM": ("pom", b" \n", "empty"),
    "a page for a POM": ("pom", PAGE, "web page"),
    "a page in capitals": ("pom", b"\xef\xbb\xbf\n<HTML >", "web page"),
    "a page behind a comment": ("pom", b"<!-- nginx -->\n" + PAGE, "web page"),
    "half a POM": ("pom", POM[:-30], "not well-formed"),
    "another document": ("pom", b"<settings/>", "root element is 'settings'"),
    "a POM with entities": ("pom", b'<!DOCTYPE p [<!ENTITY a "b">]>' + POM[22:], "declares entities"),
    "no signature": ("jar.asc", b"not found", "armoured signature"),
    "no module": ("module", b"[]", "no JSON object"),
    "a tower of JSON": ("module", b"[" * 100_000, "no JSON object"),
    "half a module": ("module", b'{"a": ', "no JSON object"),
    "no XML": ("xml", b"not found", "no XML"),
    "a large POM": ("pom", b" " * (11 << 20) + POM, "larger than"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_file_that_is_none(name: str) -> None:
    extension, data, why = SMALL[name]
    with pytest.raises(BadFile, match=why):
        check_small(place(extension), data)


LARGE = {
    "an empty jar": ("jar", b"", "empty"),
    "a page for a jar": ("jar", PAGE, "web page"),
    "some text for a jar": ("jar", b"not found", "zip archives"),
    "half a jar": ("jar", jar()[:60], "its end is missing"),
    "a page for a tar": ("tar.gz", PAGE, "web page"),
    "an empty tar": ("tar.gz", b"", "empty"),
    "some text for a tar": ("tar.gz", b"not found", "other bytes"),
    "a page for anything": ("bin", PAGE, "web page"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_file_that_is_none(name: str) -> None:
    extension, data, why = LARGE[name]
    with pytest.raises(BadFile, match=why):
        large(extension, data)


def test_a_pom_tells_its_coordinates_or_its_parents() -> None:
    assert read_pom(POM) == ("com.example", "app", "1.0")
    child = b"<project><parent><groupId>g</groupId><artifactId>p</artifactId><version>2</version></parent>"
    assert read_pom(child + b"<artifactId>a</artifactId></project>") == ("g", "a", "2")
    assert read_pom(b"<project/>") == ("", "", "")
    assert read_pom(b'<?xml version="1.0" encoding="GB18030"?><project/>') == ("", "", "")


def test_old_poms_are_read_as_they_are() -> None:
    """There are such at Central: in Latin-1 without a word of it, or in spite of one; with letters by their names."""
    name = "<name>J\u00f6rg</name>"
    for data in (
        POM.replace(b"<groupId>com", name.encode("latin-1") + b"<groupId>com"),
        POM.replace(b'"1.0"?', b'"1.0" encoding="UTF-8"?').replace(
            b"<groupId>com", name.encode("latin-1") + b"<groupId>com"
        ),
        POM.replace(b'"1.0"?', b'"1.0" encoding="ISO-8859-1"?').replace(
            b"<groupId>com", name.encode("latin-1") + b"<groupId>com"
        ),
        POM.replace(b"<groupId>com", b"<name>J&ouml;rg</name><groupId>com"),
    ):
        assert data != POM
        assert read_pom(data) == ("com.example", "app", "1.0")
    with pytest.raises(BadFile, match="not well-formed"):
        read_pom(POM.replace(b"<groupId>com", b"\xf6<<groupId>com"))


def test_the_pom_of_something_else_is_refused() -> None:
    check_pom(place("pom"), POM)
    check_pom(place("pom"), POM.replace(b"1.0</version>", b"${revision}</version>"))
    check_pom(file_path("com/example/app_2.12_1.0/1.0/app-1.0.pom"), POM)
    snapshot = POM.replace(b"<version>1.0<", b"<version>1.0-SNAPSHOT<")
    check_pom(place("pom", "1.0-SNAPSHOT", "1.0-20240102.030405-6"), snapshot)
    check_pom(place("pom", "1.0-SNAPSHOT", "1.0-SNAPSHOT"), snapshot)
    for wrong, why in (
        (POM.replace(b"com.example", b"com.evil"), "POM of group 'com.evil', and its path is that of com.example"),
        (POM.replace(b"<artifactId>app<", b"<artifactId>ap<"), "artifact 'ap'"),
        (POM.replace(b"<version>1.0<", b"<version>1.1<"), "version '1.1'"),
        (snapshot, "version '1.0-SNAPSHOT'"),
    ):
        with pytest.raises(BadFile, match=why):
            check_pom(place("pom"), wrong)


@given(
    st.binary(max_size=300), st.sampled_from(["pom", "module", "jar.asc", "xml"]), st.sampled_from(["jar", "gz", "x"])
)
def test_nothing_but_a_refusal_comes_of_any_bytes(data: bytes, small: str, big: str) -> None:
    for check in (lambda: check_small(place(small), data), lambda: large(big, data)):
        try:
            check()
        except BadFile:
            continue


def test_of_what_is_published_only_the_pom_is_judged() -> None:
    check_published(place("jar"), io.BytesIO(b"x"), 1)
    check_published(place("pom"), io.BytesIO(POM), len(POM))
    with pytest.raises(BadFile, match="not well-formed"):
        check_published(place("pom"), io.BytesIO(POM), len(POM) - 20)
    with pytest.raises(BadFile, match="larger than"):
        check_published(place("pom"), io.BytesIO(POM), 11 << 20)
