"""Problems as cmd/go shows them: plain text, the reason on the first line (go.dev/ref/mod, "GOPROXY protocol").

It shows at most eight lines and 648 bytes (cmd/go/internal/web, errorDetailBuffer), of a line that is too long nothing
at all; it ends at an empty one, and takes printable characters only.  It asks the next proxy of
its list after 404 and 410, and stops after everything else: so the status is what the problem is, and no other.
"""

from __future__ import annotations

import math

from mxart.body import Body
from mxart.errors import Problem
from mxart.message import Headers, Response

TEXT = "text/plain; charset=utf-8"
_MAX_LINES = 8
_MAX_LINE = 300  # characters
_MAX_BYTES = 640
_MARGIN = 2  # of each line, by which it is moved to the right


def word(problem: Problem) -> Response:
    """The answer that says why."""
    fields = [("content-type", TEXT), ("cache-control", "no-store"), *problem.headers]
    if problem.retry_after is not None:
        fields.append(("retry-after", str(max(0, math.ceil(problem.retry_after)))))
    text = f"{problem.message}\n{problem.detail}"
    if problem.status == 404 and problem.subject == "sumdb":
        text += (
            "\nno checksum database but this server's own knows modules of your own: `mxart setup go` prints its"
            " GOSUMDB; or set GONOSUMDB for them"
        )
    return Response(problem.status, Headers(fields), Body((_fitting(text),)))


def _fitting(text: str) -> bytes:
    """As much of it as is shown."""
    lines = [_printable(line) for line in text.splitlines() if line.strip()]
    fitting = bytearray()
    left = _MAX_BYTES
    for line in lines[:_MAX_LINES]:
        data = line.encode()
        if len(data) > left - _MARGIN:
            data = data[: max(0, left - _MARGIN - 3)].decode("utf-8", "ignore").encode() + b"..."
        fitting += data + b"\n"
        left -= len(data) + _MARGIN
        if left <= _MARGIN + 3:
            break
    return bytes(fitting)


def _printable(line: str) -> str:
    text = "".join(sign if sign.isprintable() else "?" for sign in line)
    return text if len(text) <= _MAX_LINE else text[: _MAX_LINE - 3] + "..."
