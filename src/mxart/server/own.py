"""The program's own pages below `/-/`: health, readiness, metrics, the CA's certificate."""

from __future__ import annotations

from collections.abc import Callable

from mxart.body import Body
from mxart.errors import MethodNotAllowed, NotFound
from mxart.message import Headers, Request, Response
from mxart.metrics import Metrics

_TEXT = "text/plain; charset=utf-8"


def page(status: int, media_type: str, data: bytes, *more: tuple[str, str]) -> Response:
    """A small answer that no cache keeps."""
    fields = (("content-type", media_type), ("cache-control", "no-store"), *more)
    return Response(status, Headers.lowered(fields), Body([data]))


class OwnPages:
    """Answers below `/-/`. `is_ready` says whether this worker takes new work; `ca` is the CA's certificate in PEM."""

    def __init__(self, metrics: Metrics, is_ready: Callable[[], bool], ca: Callable[[], bytes]) -> None:
        self._metrics = metrics
        self._is_ready = is_ready
        self._ca = ca

    def answer(self, request: Request) -> Response:
        """Raises NotFound, MethodNotAllowed."""
        make = {
            "/-/health": self._health,
            "/-/ready": self._ready,
            "/-/metrics": self._render_metrics,
            "/-/ca.pem": self._authority,
        }.get(request.path)
        if make is None:
            known = "/-/health, /-/ready, /-/metrics, /-/ca.pem, and the API that /-/api/v1/openapi.json describes"
            raise NotFound(f"there is no page {request.path}; there are {known}")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.path} is only read", headers=(("allow", "GET, HEAD"),))
        return make()

    def _health(self) -> Response:
        return page(200, _TEXT, b"alive\n")

    def _ready(self) -> Response:
        if self._is_ready():
            return page(200, _TEXT, b"ready\n")
        return page(503, _TEXT, b"draining\n", ("retry-after", "1"))

    def _render_metrics(self) -> Response:
        data, media_type = self._metrics.render()
        return page(200, media_type, data)

    def _authority(self) -> Response:
        return page(200, "application/x-pem-file", self._ca())
