"""Problems in the words of the registry API (distribution-spec, "Error Codes"), which every client shows."""

from __future__ import annotations

import math

import msgspec

from mxart.body import Body
from mxart.errors import Problem
from mxart.message import Headers, Response

VERSION = ("docker-distribution-api-version", "registry/2.0")

# By status, then by what the request was about; "" is for everything else.
_CODES: dict[int, dict[str, str]] = {
    400: {
        "name": "NAME_INVALID",
        "digest": "DIGEST_INVALID",
        "reference": "MANIFEST_INVALID",
        "manifest": "MANIFEST_INVALID",
        "needs": "MANIFEST_BLOB_UNKNOWN",
        "blob": "BLOB_UPLOAD_INVALID",
        "upload": "BLOB_UPLOAD_INVALID",
        "size": "SIZE_INVALID",
        "page": "PAGINATION_NUMBER_INVALID",
        "": "UNSUPPORTED",
    },
    401: {"": "UNAUTHORIZED"},
    403: {"": "DENIED"},
    404: {
        "blob": "BLOB_UNKNOWN",
        "manifest": "MANIFEST_UNKNOWN",
        "name": "NAME_UNKNOWN",
        "upload": "BLOB_UPLOAD_UNKNOWN",
        "": "UNSUPPORTED",
    },
    405: {"": "UNSUPPORTED"},
    409: {"": "DENIED"},
    412: {"": "DENIED"},
    413: {"": "SIZE_INVALID"},
    414: {"": "UNSUPPORTED"},
    416: {"": "RANGE_INVALID"},
    429: {"": "TOOMANYREQUESTS"},
    502: {"": "UNAVAILABLE"},
    503: {"": "UNAVAILABLE"},
    504: {"": "UNAVAILABLE"},
    507: {"": "UNAVAILABLE"},
    508: {"": "UNAVAILABLE"},
}


def code(problem: Problem) -> str:
    """The code of the specification, or of distribution's registry where the specification has none."""
    codes = _CODES.get(problem.status)
    if codes is None:
        return "UNKNOWN"
    return codes.get(problem.subject) or codes[""]


def word(problem: Problem) -> Response:
    """The answer that says why."""
    error: dict[str, str] = {"code": code(problem), "message": problem.message}
    if problem.detail:
        error["detail"] = problem.detail
    fields = [("content-type", "application/json"), ("cache-control", "no-store"), VERSION, *problem.headers]
    if problem.retry_after is not None:
        fields.append(("retry-after", str(max(0, math.ceil(problem.retry_after)))))
    return Response(problem.status, Headers(fields), Body((msgspec.json.encode({"errors": [error]}),)))
