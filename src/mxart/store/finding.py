"""Files looked for across packages: by what they are, by the names of packages. Statements, and nothing else.

By a digest or a checksum an index leads to them.  By names the packages are found first, and then their files: a
repository has far fewer of those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from mxart.digest import Digest
from mxart.store.base import FileRecord
from mxart.store.rows import RECORDS, as_record

# The planner would rather read all files of a repository: it is given the few rows of the index, by their numbers.
_REST = """
        AND r.name = ? AND +f.path > ? AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)
    ORDER BY f.path LIMIT ?"""
# A checksum of Maven's (repos.maven.checksums) begins "md5:<32 digits> sha1:<40 digits>"; the schema's index has these.
_BY_SHA1 = f"""
    {RECORDS} WHERE f.id IN (SELECT s.id FROM files s
        WHERE substr(s.checksum, 43, 40) = ? AND substr(s.checksum, 1, 4) = 'md5:') {_REST}"""  # noqa: S608  our own words
_BY_DIGEST = f"{RECORDS} WHERE f.id IN (SELECT s.id FROM files s WHERE s.digest = ?) {_REST}"  # noqa: S608
_IN_PACKAGES = f"""
    {RECORDS} WHERE f.package IN (
        SELECT q.id FROM packages q JOIN repositories o ON o.id = q.repository
        WHERE o.name = ?4 AND q.name >= ?5 AND q.name < ?6
            AND (?7 = '' OR q.name = ?7 OR substr(q.name, -length(?7) - 1) = '/' || ?7)
            AND (?8 OR instr(substr(q.name, length(?5) + 1), '/') = 0))
        AND r.name = ?1 AND f.path > ?2 AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)
    ORDER BY f.path LIMIT ?3"""  # noqa: S608  # of our own words
_LAST = "\U0010ffff"

Ask = Callable[[str, tuple[str | int, ...]], list[Any]]  # sqlite3's rows are untyped


class Sought(Struct, frozen=True):
    """What is looked for: all of what is said here.

    By `digest` or `sha1`, in hexadecimal, in every package.  Else by packages: `folder` is what their names begin with,
    a slash at its end, right below which they are unless `deep`; `leaf` is the last part of their names.
    """

    digest: Digest | None = None
    sha1: str = ""
    folder: str = ""
    deep: bool = True
    leaf: str = ""


def find(ask: Ask, repository: str, sought: Sought, after: str, limit: int) -> list[FileRecord]:
    """Files in the order of their paths, those after `after`; the tags' own records are not among them."""
    page = (repository, after, limit)
    if sought.digest is not None:
        rows = ask(_BY_DIGEST, (str(sought.digest), *page))
    elif sought.sha1:
        rows = ask(_BY_SHA1, (sought.sha1, *page))
    else:
        end = f"{sought.folder.removesuffix('/')}0" if sought.folder else _LAST
        rows = ask(_IN_PACKAGES, (*page, repository, sought.folder, end, sought.leaf, int(sought.deep)))
    return [as_record(row) for row in rows]
