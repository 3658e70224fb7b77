"""A hash that can be put aside and taken up again: in another worker, after a restart, without reading the bytes again.

Theory of operation
-------------------
hashlib keeps its state to itself.  The functions of libcrypto below it work on a plain structure that the caller
owns (SHA256_CTX and SHA512_CTX, openssl/sha.h): copying its bytes copies the state.  They are taken from the very
library that hashlib itself is linked with, so they are as fast, and let go of the interpreter's lock as hashlib does.

The layout is the library's own business, so a state names the library and the machine that it comes from, and
nobody else takes it up.  Where the functions are missing, or do not do in a trial what hashlib does, hashlib is
used: then there is no state to keep, and whoever goes on reads the bytes again.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import ssl
from functools import cache
from typing import Protocol

from msgspec import Struct

from mxart.digest import Hash

LIBRARY = f"{ssl.OPENSSL_VERSION} {platform.machine()}"
"""Whose states can be taken up."""

_SIZES = {"sha256": (112, 32), "sha512": (216, 64)}  # bytes of the structure, and of the digest
_ROOM = 512  # for the structure, should the library's be larger than it ever was


class ResumableHash(Hash, Protocol):
    """A hash whose state can be kept."""

    def state(self) -> bytes | None:
        """All there is to know of it, for `resume`; None where it cannot be told."""
        ...


class _Functions(Struct, frozen=True):
    """What libcrypto has for one algorithm."""

    start: ctypes._NamedFuncPointer
    update: ctypes._NamedFuncPointer
    final: ctypes._NamedFuncPointer
    size: int
    digest_size: int


class _CopiedHash:
    """By libcrypto's functions, on a structure of ours."""

    __slots__ = ("_context", "_functions")

    def __init__(self, functions: _Functions, state: bytes = b"") -> None:
        self._functions = functions
        self._context = ctypes.create_string_buffer(_ROOM)
        if state:
            ctypes.memmove(self._context, state, functions.size)
        elif functions.start(self._context) != 1:
            raise RuntimeError("libcrypto cannot begin a hash")

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        view = memoryview(data)
        if not view.nbytes:
            return
        if isinstance(data, bytes) or view.readonly:
            done = self._functions.update(self._context, bytes(data), view.nbytes)
        else:  # without a copy: ctypes gives the address only of what could be written to
            done = self._functions.update(self._context, ctypes.byref(ctypes.c_char.from_buffer(view)), view.nbytes)
        if done != 1:
            raise RuntimeError("libcrypto cannot go on with a hash")

    def hexdigest(self) -> str:
        """Of what came so far; more may come (the end is made on a copy)."""
        copy = ctypes.create_string_buffer(self._context.raw, _ROOM)
        found = ctypes.create_string_buffer(self._functions.digest_size)
        if self._functions.final(found, copy) != 1:
            raise RuntimeError("libcrypto cannot end a hash")
        return found.raw.hex()

    def state(self) -> bytes | None:
        return self._context.raw[: self._functions.size]


class _PlainHash:
    """By hashlib: complete but for its state."""

    __slots__ = ("_hash",)

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def state(self) -> bytes | None:
        return None


def new_hash(algorithm: str) -> ResumableHash:
    """A fresh hash, "sha256" or "sha512"."""
    functions = _functions(algorithm)
    return _PlainHash(algorithm) if functions is None else _CopiedHash(functions)


def resume(algorithm: str, state: bytes) -> ResumableHash | None:
    """Go on from a state of the same `LIBRARY`; None where that cannot be done."""
    functions = _functions(algorithm)
    if functions is None or len(state) != functions.size:
        return None
    return _CopiedHash(functions, state)


@cache
def _functions(algorithm: str) -> _Functions | None:
    """libcrypto's functions for an algorithm, if they are to be had and do in a trial what hashlib does."""
    try:
        import _hashlib  # noqa: PLC0415  # an interpreter may be built without it

        library = ctypes.CDLL(_hashlib.__file__)
        name = algorithm.upper()
        start, update, final = (getattr(library, f"{name}_{step}") for step in ("Init", "Update", "Final"))
    except (ImportError, AttributeError, OSError):
        return None
    start.argtypes = (ctypes.c_void_p,)
    update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    final.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    functions = _Functions(start, update, final, *_SIZES[algorithm])
    return functions if _does_it_right(algorithm, functions) else None


def _does_it_right(algorithm: str, functions: _Functions) -> bool:
    first, second = bytes(range(201)), bytearray(range(77))
    early = _CopiedHash(functions)
    early.update(first)
    late = _CopiedHash(functions, early.state() or b"")
    early.update(b"something else")
    late.update(memoryview(second))
    return late.hexdigest() == hashlib.new(algorithm, first + second, usedforsecurity=False).hexdigest()
