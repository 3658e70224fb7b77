"""Paths of Maven's layout: what they name, which ones are refused, and that no trick leads out of the repository."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.errors import BadRequest
from mxart.repos.maven.coordinates import (
    MAX_PATH,
    MAX_SEGMENT,
    ChecksumPath,
    DirectoryPath,
    FilePath,
    MetadataPath,
    PrefixesPath,
    escape,
    file_path,
    parse,
    read,
)

APP = "com/example/app"

# Path below com/example/app, version, value, classifier, extension.
FILES = [
    ("1.0/app-1.0.jar", "1.0", "1.0", "", "jar"),
    ("1.0/app-1.0.pom", "1.0", "1.0", "", "pom"),
    ("1.0/app-1.0-sources.jar", "1.0", "1.0", "sources", "jar"),
    ("1.0/app-1.0-sources.jar.asc", "1.0", "1.0", "sources", "jar.asc"),
    ("1.0/app-1.0.jar.sigstore.json", "1.0", "1.0", "", "jar.sigstore.json"),
    ("1.0/app-1.0.tar.gz", "1.0", "1.0", "", "tar.gz"),
    ("1.0/app-1.0-bin.tar.gz", "1.0", "1.0", "bin", "tar.gz"),
    ("1.0/app-1.0-osx-10.6.zip", "1.0", "1.0", "osx-10.6", "zip"),
    ("1.0/app-1.0-jdk8.tar.gz.asc", "1.0", "1.0", "jdk8", "tar.gz.asc"),
    ("1.0/app-1.0.module", "1.0", "1.0", "", "module"),
    ("1.0+build.7/app-1.0+build.7.jar", "1.0+build.7", "1.0+build.7", "", "jar"),
    ("1.0-20240102.030405-6/app-1.0-20240102.030405-6.jar", "1.0-20240102.030405-6", "1.0-20240102.030405-6", "",
     "jar"),
    ("1.1-SNAPSHOT/app-1.1-20240102.030405-6.jar", "1.1-SNAPSHOT", "1.1-20240102.030405-6", "", "jar"),
    ("1.1-SNAPSHOT/app-1.1-20240102.030405-6-tests.jar", "1.1-SNAPSHOT", "1.1-20240102.030405-6", "tests", "jar"),
    ("1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar", "1.1-SNAPSHOT", "1.1-SNAPSHOT", "", "jar"),
    ("1.1-SNAPSHOT/app-1.1-SNAPSHOT-tests.jar", "1.1-SNAPSHOT", "1.1-SNAPSHOT", "tests", "jar"),
    ("SNAPSHOT/app-SNAPSHOT.pom", "SNAPSHOT", "SNAPSHOT", "", "pom"),
    ("master-SNAPSHOT/app-master-7d2306cde8-1.pom", "master-SNAPSHOT", "master-7d2306cde8-1", "", "pom"),
    ("-SNAPSHOT/app--7d2306cde8-1-sources.jar", "-SNAPSHOT", "-7d2306cde8-1", "sources", "jar"),
    ("SNAPSHOT/app-20240102.030405-6.pom", "SNAPSHOT", "20240102.030405-6", "", "pom"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "version", "value", "classifier", "extension"), FILES, ids=[f[0] for f in FILES])
def test_a_file_of_a_version(path: str, version: str, value: str, classifier: str, extension: str) -> None:
    found = parse(escape(f"/{APP}/{path}"))
    assert found == FilePath(f"{APP}/{path}", "com.example", "app", version, value, classifier, extension)
    assert found.package == APP
    assert found.directory == f"{APP}/{version}"
    assert found.is_alias == (value.endswith("SNAPSHOT"))
    assert (found.build is not None) == (value != version and "7d2306cde8" not in value)


def test_a_build_of_a_snapshot() -> None:
    alias = file_path(f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT-tests.tar.gz")
    build = alias.as_version("1.1-20240102.030405-6")
    assert build.path == f"{APP}/1.1-SNAPSHOT/app-1.1-20240102.030405-6-tests.tar.gz"
    assert build == file_path(build.path)
    assert build.build == ("20240102.030405", 6)
    assert str(build) == "com.example:app:1.1-20240102.030405-6"
    twisted = file_path("g/a-1-SNAPSHOT/1-SNAPSHOT/a-1-SNAPSHOT-1-SNAPSHOT.jar")
    assert twisted.as_version("1-20240102.030405-6").name == "a-1-SNAPSHOT-1-20240102.030405-6.jar"


def test_a_signature_knows_what_it_signs() -> None:
    assert file_path(f"{APP}/1.0/app-1.0.jar.asc").of == f"{APP}/1.0/app-1.0.jar"
    assert file_path(f"{APP}/1.0/app-1.0.jar.sigstore.json").of == f"{APP}/1.0/app-1.0.jar"
    assert file_path(f"{APP}/1.0/app-1.0.jar").of == ""


def test_plugins_of_sbt_have_shorter_file_names() -> None:
    found = file_path("com/eed3si9n/sbt-assembly_2.12_1.0/0.14.10/sbt-assembly-0.14.10.jar")
    assert (found.artifact, found.value, found.extension) == ("sbt-assembly_2.12_1.0", "0.14.10", "jar")
    assert isinstance(read("com/eed3si9n/sbt-assembly_2.12_1.0/0.14.10/sbt-0.14.10.jar"), DirectoryPath)


def test_metadata_of_three_levels() -> None:
    assert read("com/maven-metadata.xml") == MetadataPath("com/maven-metadata.xml", "")
    artifact = read(f"{APP}/maven-metadata.xml")
    assert isinstance(artifact, MetadataPath)
    assert (artifact.package, artifact.directory, artifact.version) == (APP, APP, "")
    snapshot = read(f"{APP}/1.1-SNAPSHOT/maven-metadata.xml")
    assert isinstance(snapshot, MetadataPath)
    assert (snapshot.package, snapshot.directory, snapshot.version) == (APP, f"{APP}/1.1-SNAPSHOT", "1.1-SNAPSHOT")
    assert str(snapshot) == "the maven-metadata.xml of com.example:app:1.1-SNAPSHOT"
    assert isinstance(read("maven-metadata.xml"), DirectoryPath)  # there is none at the root
    assert read("1.1-SNAPSHOT/maven-metadata.xml") == MetadataPath("1.1-SNAPSHOT/maven-metadata.xml", "")


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_a_checksum_of_anything_but_of_a_checksum(algorithm: str) -> None:
    for of in (
        f"{APP}/1.0/app-1.0.jar",
        f"{APP}/1.0/app-1.0.jar.asc",
        f"{APP}/maven-metadata.xml",
        ".meta/prefixes.txt",
    ):
        found = read(f"{of}.{algorithm}")
        assert isinstance(found, ChecksumPath)
        assert (found.of, found.algorithm) == (read(of), algorithm)
    assert isinstance(read(f"{APP}/1.0/app-1.0.jar.sha1.{algorithm}"), DirectoryPath)
    assert isinstance(read(f"{APP}/1.0.{algorithm}"), DirectoryPath)


def test_directories_and_the_rest() -> None:
    assert parse("/") == DirectoryPath("")
    assert parse("") == DirectoryPath("")
    assert parse("/com/example/") == DirectoryPath("com/example")
    assert parse("/com/example") == DirectoryPath("com/example", slash=False)
    assert parse("/.meta/prefixes.txt") == PrefixesPath()


@pytest.mark.parametrize(
    "path",
    ["1.0/other-1.0.jar", "1.0/app-1.1.jar", "1.0/app-1.0", "1.0/app-1.0.", "1.0/app-1.0-.jar", "1.0/app-1.0-sources",
     "1.0/app.jar", "1.0/app-", "1.1-SNAPSHOT/app-1.1.jar", "1.1-SNAPSHOT/app-1.0-20240102.030405-6.jar",
     "1.1-SNAPSHOT/app-1.1-20240102.030405-0.jar", "1.1-SNAPSHOT/app-1.1-20240102.030405-6x.jar",
     "1.1-SNAPSHOT/app-1.1-20240102.030405-9999999999.jar", "1.0/index.html"],
)  # fmt: skip
def test_what_is_not_called_as_files_of_a_version_are(path: str) -> None:
    assert read(f"{APP}/{path}") == DirectoryPath(f"{APP}/{path}", slash=False)


TRICKS = {
    "/../etc/passwd": "is called",
    "/com/../../etc/passwd": "is called",
    "/com/%2e%2e/%2e%2e/etc/passwd": "is called",
    "/com/.%2e/app": "is called",
    "/com/./app": "is called",
    "/.git/config": "is called",
    "/.meta/other.txt": "is called",
    "/com//app": "two slashes",
    "//com/app": "two slashes",
    "/com/app//": "two slashes",
    "/com/a%2Fb/1.0/b-1.0.jar": "slash as an escape",
    "/com/a%2fb/": "slash as an escape",
    "/com%5c..%5cx/": "other characters",
    "/com\\..\\x/": "other characters",
    "/com/a%00/": "other characters",
    "/com/a%0a/": "other characters",
    "/com/a%7f/": "other characters",
    "/com/a%252e%252e/": "other characters",
    "/com/a:b/": "other characters",
    "/com/a%3Fb/": "other characters",
    "/com/a*/": "other characters",
    "/com/<a>/": "other characters",
    "/com/a;b=c/": "other characters",
    "/com/%20a/": "space at an end",
    "/com/a%20/": "space at an end",
    "/com/%E2%80%AEa/": "other characters",
    "/com/a%CC%88/": "composed form",
    "/com/%ff/": "not UTF-8",
    "/com/%c0%ae%c0%ae/": "not UTF-8",
    "/com/%zz/": "two hexadecimal digits",
    "/com/%": "two hexadecimal digits",
    "/com/ä/": "percent escapes",
    "/" + "a/" * MAX_PATH: "longer than",
    "/" + "a" * (MAX_SEGMENT + 1) + "/": "more than",
    "/" + "%C3%A4" * 128 + "/": "more than",
}


@pytest.mark.parametrize("path", TRICKS, ids=range(len(TRICKS)))
def test_a_trick_is_refused_with_what_is_wrong(path: str) -> None:
    with pytest.raises(BadRequest, match=TRICKS[path]) as refused:
        parse(path)
    assert refused.value.message.isascii()
    assert len(refused.value.message) < 1100


def test_file_names_may_have_every_allowed_character() -> None:
    strange = "Ab9._-+~!$&'=@#^ ü漢é"
    path = f"com/{strange}x/1.0{strange}y/{strange}x-1.0{strange}y-{strange}z.jar"
    found = parse(f"/{escape(path)}")
    assert isinstance(found, FilePath)
    assert found.path == path
    assert found.version == f"1.0{strange}y"
    assert escape(path).isascii()
    assert re.fullmatch(r"[A-Za-z0-9._~!$&'=@%/+-]+", escape(path))


segments = st.text(st.sampled_from("ab1.-_+ %/\\~ä\0"), max_size=5)


@given(st.lists(segments, max_size=7).map("/".join))
def test_nothing_but_a_place_within_or_a_refusal_comes_of_any_path(path: str) -> None:
    try:
        place = read(path)
    except BadRequest:
        return
    assert ".." not in place.path.split("/")
    assert "" not in place.path.split("/") or not place.path
    assert "\0" not in place.path
    assert parse(escape(path) if not path.startswith("/") else path) == place


names = st.from_regex(r"[a-z0-9][a-z0-9_.]{0,5}[a-z0-9]", fullmatch=True)


@given(
    names,
    names,
    st.from_regex(r"[0-9]{1,2}(\.[0-9a-z]{1,3}){0,2}(-rc[0-9])?", fullmatch=True),
    st.sampled_from(["", "sources", "linux-x86_64"]),
    st.sampled_from(["jar", "pom", "tar.gz", "jar.asc"]),
)
def test_coordinates_come_back_from_their_path(
    group: str, artifact: str, version: str, classifier: str, extension: str
) -> None:
    group = group.replace("..", ".")
    tail = f"-{classifier}" if classifier else ""
    path = f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}{tail}.{extension}"
    found = read(path)
    assert isinstance(found, FilePath)
    assert (found.group, found.artifact, found.version) == (group, artifact, version)
    assert (found.classifier, found.extension) == (classifier, extension)
