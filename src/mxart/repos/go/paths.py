"""Module paths, file names within modules, and how both are written in URLs (golang.org/x/mod/module). Pure.

An upper-case letter is written as `!` and the lower-case one, in paths and in versions: `github.com/!burnt!sushi/toml`.
What is wrong raises ValueError with what would be right.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Kind = Literal["module", "file"]

_MODULE_PART = re.compile(r"[A-Za-z0-9._~-]+\Z")
_FILE_SIGNS = frozenset("!#$%&()+,-.=@[]^_{}~ ")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9._-]+\Z")  # most of them
_FIRST_PART = re.compile(r"[a-z0-9.-]+\Z")
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))))
_SHORT_NAME = re.compile(r"~[0-9]+\Z")  # what Windows makes of long names
_MAJOR = re.compile(r"(.+)/(v[0-9.]+)\Z", re.DOTALL)
_GOPKG_MAJOR = re.compile(r"(.+)\.(v[0-9]+)(-unstable)?\Z", re.DOTALL)
_UPPER = re.compile("[A-Z]")
_ESCAPE = re.compile("!([a-z])")
_UNESCAPED = re.compile("[A-Z]|!(?![a-z])")

GOPKG = "gopkg.in/"


def check_path(path: str) -> str:
    """The module path. Raises ValueError (module.CheckPath)."""
    _check(path, "module")
    first = path.partition("/")[0]
    if "." not in first:
        raise ValueError(f"{shown(path)} is no module path: its first element, {shown(first)}, lacks a dot")
    if _FIRST_PART.match(first) is None or first.startswith("-"):
        allowed = "lower-case letters, digits, dots and, but for its begin, dashes"
        raise ValueError(f"{shown(path)} is no module path: its first element may have {allowed}")
    if split_major(path) is None:
        right = "gopkg.in/name.v2" if path.startswith(GOPKG) else "/v2 or above, without zeros before it"
        raise ValueError(f"{shown(path)} is no module path: a major version at its end is written {right}")
    return path


def check_file_path(path: str) -> str:
    """The name of a file in a module, slashes between its elements. Raises ValueError (module.CheckFilePath)."""
    _check(path, "file")
    return path


def _check(path: str, kind: Kind) -> None:
    what = "module path" if kind == "module" else "file name that a module may have"
    if not path:
        raise ValueError(f"an empty name is no {what}")
    if kind == "module" and path.startswith("-"):
        raise ValueError(f"{shown(path)} is no {what}: it begins with a dash")
    for part in path.split("/"):
        why = _fault(part, kind)
        if why:
            raise ValueError(f"{shown(path)} is no {what}: {why}")


def _fault(part: str, kind: Kind) -> str:
    """What is wrong with one element, "" if nothing is (module.checkElem)."""
    if not part:
        return "an element of it is empty"
    if part.endswith("."):
        return f"the element {shown(part)} ends with a dot"
    if kind == "module":
        if part.startswith("."):
            return f"the element {shown(part)} begins with a dot"
        if _MODULE_PART.match(part) is None:
            return f"the element {shown(part)} has other characters than ASCII letters, digits and - . _ ~"
    elif _PLAIN_FILE.match(part) is None and not all(_fits_file(sign) for sign in part):
        return f"the element {shown(part)} has characters that not every file system takes"
    short = part.partition(".")[0]
    if short.lower() in _RESERVED:
        return f"Windows keeps {shown(short)} for itself"
    if kind == "module" and _SHORT_NAME.search(short):
        return f"{shown(short)} looks like a short name of Windows"
    return ""


def _fits_file(sign: str) -> bool:
    if sign.isascii():
        return sign.isalnum() or sign in _FILE_SIGNS
    return unicodedata.category(sign).startswith("L")


def split_major(path: str) -> tuple[str, str] | None:
    """A path without the major version at its end, and that ("/v2", ".v1-unstable", or ""); None if it is malformed.

    (module.SplitPathVersion)
    """
    if path.startswith(GOPKG):
        match = _GOPKG_MAJOR.match(path)
        if match is None or (match[2][1] == "0" and match[2] != "v0"):
            return None
        return match[1], path[len(match[1]) :]
    match = _MAJOR.match(path)
    if match is None:
        return path, ""
    version = match[2]
    if "." in version or version[1] == "0" or version == "v1":
        return None
    return match[1], f"/{version}"


def escape(text: str) -> str:
    """A module path or version as URLs and file names have it."""
    return _UPPER.sub(lambda match: "!" + match[0].lower(), text)


def unescape_path(text: str) -> str:
    """The module path that is written so, percent escapes removed before. Raises ValueError (module.UnescapePath)."""
    return check_path(_unescape(text))


def unescape_version(text: str) -> str:
    """The version, or branch or the like, that is written so. Raises ValueError (module.UnescapeVersion)."""
    version = _unescape(text)
    why = _fault(version, "file") or ("it has a slash" if "/" in version else "")
    if why:
        raise ValueError(f"{shown(version)} is no version: {why}")
    return version


def _unescape(text: str) -> str:
    if not text.isascii():
        raise ValueError(f"{shown(text)} has other characters than ASCII ones")
    if _UNESCAPED.search(text):
        raise ValueError(f"{shown(text)} is not escaped: upper-case letters are written !a for A, and ! nowhere else")
    return _ESCAPE.sub(lambda match: match[1].upper(), text)


def fold(text: str) -> str:
    """The same for names that differ in case only, by Unicode's simple folding, as file systems compare them."""
    return text.lower() if text.isascii() else "".join(map(_fold_one, text))


def _fold_one(sign: str) -> str:
    folded = sign.casefold()
    if len(folded) == 1:
        return folded
    lower = sign.lower()  # only full folding, ß to ss, makes it longer
    return lower if len(lower) == 1 else sign


def shown(text: str) -> str:
    """Text of a stranger's, fit for a message."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")
