"""~/.netrc files, as curl and the go command read them: a login and a password for each host. Pure."""

from __future__ import annotations

from typing import ClassVar

from mxart.discreet import Discreet


class Entry(Discreet, frozen=True):
    """Of one machine; `machine` "" is what holds for every other one."""

    hidden: ClassVar = frozenset({"password"})

    machine: str
    login: str = ""
    password: str = ""


def read(text: str) -> tuple[Entry, ...]:
    """Every machine with a login and a password, in order. Macros are passed over. Raises ValueError."""
    words: list[str] = []
    in_macro = False
    for line in text.splitlines():
        if in_macro:
            in_macro = bool(line.strip())
            continue
        fields = line.split()
        if "macdef" in fields:
            fields = fields[: fields.index("macdef")]
            in_macro = True
        # A "#" may begin a password; whole lines of comment are what people write.
        if not line.lstrip().startswith("#"):
            words += fields
    return _entries(words)


def _entries(words: list[str]) -> tuple[Entry, ...]:
    found: list[dict[str, str]] = []
    rest = iter(words)
    for word in rest:
        if word == "default":
            found.append({"machine": ""})
        elif word in ("machine", "login", "password", "account"):
            value = next(rest, None)
            if value is None:
                raise ValueError(f"it ends behind {word!r}")
            if word == "machine":
                found.append({"machine": value.lower()})
            elif not found:
                raise ValueError(f"{word!r} stands before any machine")
            else:
                found[-1][word] = value
        else:
            raise ValueError("a word is none of machine, default, login, password, account, macdef")
    return tuple(
        Entry(one["machine"], one["login"], one["password"])
        for one in found
        if one.get("login") and one.get("password")
    )


def find(entries: tuple[Entry, ...], host: str, authority: str) -> Entry | None:
    """What is shown to a host; a machine may be written with its port."""
    named = next((one for one in entries if one.machine in (authority, host)), None)
    return named or next((one for one in entries if not one.machine), None)
