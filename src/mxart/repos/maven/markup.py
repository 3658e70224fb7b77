"""XML of strangers, read as it comes: no document types, no entities, not too deep, not too large. Pure.

Nothing is built but what was asked for, so ten megabytes of anything are no trouble but time.
"""

from __future__ import annotations

from collections.abc import Collection
from xml.parsers import expat

Path = tuple[str, ...]

MAX_SIZE = 10 << 20
MAX_DEPTH = 64
MAX_ELEMENTS = 600_000
_PROLOG = b"\xef\xbb\xbf \t\r\n"


class BadMarkup(ValueError):
    """It is no XML, or some that is not read here; the text says why, as in "it is ..."."""


def read(
    data: bytes, wanted: Collection[Path], *, depth: int = MAX_DEPTH, lenient: bool = False
) -> tuple[str, list[tuple[Path, str]]]:
    """The root's name; and the elements at the wanted paths, in the order of their ends, with the text right in them.

    A path begins below the root; names are without a prefix.  `lenient`: entities that nobody has declared, as
    `&oslash;`, and a document type that declares none are passed over, and what is no UTF-8 is taken for Latin-1: old
    POMs have such.  Raises BadMarkup.
    """
    if len(data) > MAX_SIZE:
        raise BadMarkup(f"it is larger than {MAX_SIZE} bytes")
    try:
        return _read(_Reader(wanted, depth, lenient=lenient), data)
    except BadMarkup:
        if not lenient or _is_unicode(data):
            raise
    return _read(_Reader(wanted, depth, lenient=lenient, encoding="iso-8859-1"), data)


def _is_unicode(data: bytes) -> bool:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read(reader: _Reader, data: bytes) -> tuple[str, list[tuple[Path, str]]]:
    try:
        reader.parser.Parse(data.lstrip(_PROLOG), True)
    except expat.ExpatError as error:
        raise BadMarkup(f"it is not well-formed: {error}") from None
    except (ValueError, LookupError) as error:  # of encodings that Python has, and expat cannot use
        if isinstance(error, BadMarkup):
            raise
        raise BadMarkup(f"its encoding is not read here: {error}; UTF-8 is") from None
    return reader.root, reader.found


class _Reader:
    def __init__(self, wanted: Collection[Path], depth: int, *, lenient: bool, encoding: str | None = None) -> None:
        self.root = ""
        self.found: list[tuple[Path, str]] = []
        self._wanted = wanted
        self._depth = depth
        self._at: Path | None = None
        self._above: list[Path | None] = []  # None: nothing below is wanted
        self._prefixes = {path[:n] for path in wanted for n in range(len(path) + 1)}
        self._texts: list[list[str]] = []
        self._elements = 0
        self.parser = expat.ParserCreate(encoding)
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._declared
        if lenient:
            # As if there were a document type elsewhere, which is not looked for: it may declare what it likes.
            self.parser.UseForeignDTD(True)
            self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        else:
            self.parser.StartDoctypeDeclHandler = self._typed
            self.parser.ProcessingInstructionHandler = self._instructed

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise BadMarkup(f"it has more than {MAX_ELEMENTS} elements")
        name = name.rpartition(":")[2]
        if not self._above:
            self.root = name
            at: Path | None = ()
        else:
            at = (*self._at, name) if self._at is not None else None
        self._above.append(self._at)
        self._at = at if at in self._prefixes else None
        if len(self._above) > self._depth:
            raise BadMarkup(f"its elements are nested deeper than {self._depth}")
        self._texts.append([])

    def _end(self, name: str) -> None:
        text = "".join(self._texts.pop())
        if self._at is not None and self._at in self._wanted:
            self.found.append((self._at, text.strip()))
        self._at = self._above.pop()

    def _text(self, text: str) -> None:
        if self._at is not None and self._texts:
            self._texts[-1].append(text)

    def _declared(self, *_: object) -> None:
        raise BadMarkup("it declares entities")

    def _typed(self, *_: object) -> None:
        raise BadMarkup("it has a document type (DOCTYPE)")

    def _instructed(self, *_: object) -> None:
        raise BadMarkup("it has a processing instruction")
