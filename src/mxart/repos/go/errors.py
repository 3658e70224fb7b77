"""Problems as cmd/go shows them: plain text, the reason on the first line (go.dev/ref/mod, "GOPROXY protocol").

It shows at most eight lines, ends at an empty one, and takes printable characters only.  It asks the next proxy of
its list after 404 and 410, and stops after everything else: so the status is what the problem is, and no other.
"""

from __future__ import annotations

import math

from mxart.body import Body
from mxart.errors import Problem
from mxart.message import Headers, Response

TEXT = "text/plain; charset=utf-8"
_MAX_LINES = 8
_MAX_LINE = 300


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
    lines = [_printable(line) for line in text.splitlines() if line.strip()]
    text = "".join(f"{line}\n" for line in lines[:_MAX_LINES])
    return Response(problem.status, Headers(fields), Body((text.encode(),)))


def _printable(line: str) -> str:
    text = "".join(sign if sign.isprintable() else "?" for sign in line)
    return text if len(text) <= _MAX_LINE else text[: _MAX_LINE - 3] + "..."
