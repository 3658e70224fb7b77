"""Media types of files, by their extensions. Pure."""

from __future__ import annotations

from mxart.repos.maven.coordinates import SIGNATURES, FilePath

XML = "application/xml"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
_SIGNED = {".asc": "application/pgp-signature"}
_TYPES = {
    **dict.fromkeys(("jar", "war", "ear", "rar", "par", "hpi", "jpi"), "application/java-archive"),
    **dict.fromkeys(("zip", "aar", "nar", "klib", "apk"), "application/zip"),
    **dict.fromkeys(("pom", "xml"), XML),
    **dict.fromkeys(("module", "json"), "application/json"),
    **dict.fromkeys(("tar.gz", "tgz", "gz"), "application/gzip"),
    **dict.fromkeys(("tar.bz2", "bz2"), "application/x-bzip2"),
    **dict.fromkeys(("tar.xz", "xz"), "application/x-xz"),
    "tar": "application/x-tar",
    "txt": TEXT,
}


def of(path: FilePath) -> str:
    """What a file is served as."""
    signature = next((suffix for suffix in SIGNATURES if path.extension.endswith(suffix)), "")
    if signature:
        return _SIGNED.get(signature, "application/json" if signature.endswith(".json") else BYTES)
    return _TYPES.get(path.extension.lower(), BYTES)
