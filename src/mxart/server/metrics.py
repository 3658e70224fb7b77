"""The series that this server keeps: what each means, and which label values there can be."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mxart.metrics import Family, Metrics
from mxart.upstream.budget import Budget

_log = logging.getLogger("mxart.upstream")

OUTCOMES = ("hit", "miss", "joined", "revalidated", "stale", "local", "negative", "static", "own", "none")
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "cut")
UPSTREAM_RESULTS = ("2xx", "3xx", "4xx", "5xx", "failed")
DNS_OUTCOMES = (
    "own",
    "cached",
    "forwarded",
    "stale",
    "failed",
    "refused",
    "stranger",
    "malformed",
    "ignored",
)

EXCHANGES = "mxart_exchanges"
SENT = "mxart_sent_bytes"
FIRST_BYTE = "mxart_first_byte_seconds"
CONNECTIONS = "mxart_connections"
ACCEPTED = "mxart_accepted_connections"
REFUSED = "mxart_refused_connections"
TUNNELS = "mxart_tunnels"
TUNNELLED = "mxart_tunnelled_bytes"
UPSTREAM_REQUESTS = "mxart_upstream_requests"
UPSTREAM_RECEIVED = "mxart_upstream_received_bytes"
UPSTREAM_FIRST_BYTE = "mxart_upstream_first_byte_seconds"
UPSTREAM_REMAINING = "mxart_upstream_ratelimit_remaining"
UPSTREAM_LIMIT = "mxart_upstream_ratelimit_limit"
UPSTREAM_LOW = "mxart_upstream_ratelimit_low"
UPSTREAM_DOCUMENTS = "mxart_upstream_documents"
LIMITED = "mxart_rate_limited_requests"
WORKERS = "mxart_workers"
DNS_QUERIES = "mxart_dns_queries"
DNS_FORWARD = "mxart_dns_forward_seconds"


def families(repositories: Iterable[str]) -> list[Family]:
    """Every series of a server with these repositories."""
    names = tuple(repositories)
    everything = (*names, "")
    return [
        Family(
            EXCHANGES,
            "counter",
            "Requests answered, by repository, where the answer came from, and status class; cut: ended early",
            [("repository", everything), ("outcome", OUTCOMES), ("status", STATUSES)],
        ),
        Family(SENT, "counter", "Body bytes sent to clients", [("repository", everything)]),
        Family(
            FIRST_BYTE,
            "histogram",
            "From the request's head to the first byte of the answer",
            [("repository", everything)],
        ),
        Family(CONNECTIONS, "gauge", "Connections open now"),
        Family(ACCEPTED, "counter", "Connections accepted"),
        Family(REFUSED, "counter", "Connections ended before a request or a tunnel"),
        Family(TUNNELS, "gauge", "Tunnels open now"),
        Family(TUNNELLED, "counter", "Bytes passed through tunnels", [("direction", ("up", "down"))]),
        Family(
            UPSTREAM_REQUESTS,
            "counter",
            "Requests to upstream by the status class of the answer; failed: there was none",
            [("repository", names), ("result", UPSTREAM_RESULTS)],
        ),
        Family(UPSTREAM_RECEIVED, "counter", "Body bytes received from upstream", [("repository", names)]),
        Family(
            UPSTREAM_FIRST_BYTE, "histogram", "From asking upstream to the head of its answer", [("repository", names)]
        ),
        Family(
            UPSTREAM_REMAINING,
            "gauge",
            "What upstream last said of its rate limit's remainder",
            [("repository", names)],
            latest=True,
        ),
        Family(
            UPSTREAM_LIMIT, "gauge", "What upstream last said of its rate limit", [("repository", names)], latest=True
        ),
        Family(
            UPSTREAM_LOW,
            "gauge",
            "1 when less than a tenth of upstream's rate limit is left, until a fifth is",
            [("repository", names)],
            latest=True,
        ),
        Family(
            UPSTREAM_DOCUMENTS,
            "counter",
            "Documents that upstream gave; Docker Hub counts a GET as a pull, and no HEAD",
            [("repository", names), ("method", ("GET", "HEAD"))],
        ),
        Family(LIMITED, "counter", "Requests refused because their client sent too many"),
        Family(WORKERS, "gauge", "Worker processes serving"),
        Family(
            DNS_QUERIES,
            "counter",
            "DNS queries by what became of them; own: a claimed name; stranger: from none of the clients' networks",
            [("outcome", DNS_OUTCOMES)],
        ),
        Family(DNS_FORWARD, "histogram", "From asking the DNS forwarders to the first good answer"),
    ]


class UpstreamObserver:
    """Counts what upstreams tell (upstream.observe.Observer)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answered(self, upstream: str, status: int, seconds: float) -> None:
        self._metrics.add(UPSTREAM_REQUESTS, upstream, f"{status // 100}xx")
        self._metrics.observe(UPSTREAM_FIRST_BYTE, upstream, seconds=seconds)

    def received(self, upstream: str, count: int) -> None:
        self._metrics.add(UPSTREAM_RECEIVED, upstream, amount=count)

    def failed(self, upstream: str, cause: str) -> None:  # the cause is in the log
        self._metrics.add(UPSTREAM_REQUESTS, upstream, "failed")

    def document(self, upstream: str, method: str) -> None:
        self._metrics.add(UPSTREAM_DOCUMENTS, upstream, method)

    def budget(self, upstream: str, budget: Budget) -> None:
        self._metrics.set(UPSTREAM_REMAINING, upstream, value=budget.remaining)
        if not budget.limit:
            return
        self._metrics.set(UPSTREAM_LIMIT, upstream, value=budget.limit)
        was_low = bool(self._metrics.latest(UPSTREAM_LOW, upstream))  # whichever worker told
        if budget.is_low and not was_low:
            self._metrics.set(UPSTREAM_LOW, upstream, value=1.0)
            text = "%s: upstream takes only %d more of %d requests; what is kept goes on being served"
            _log.warning(text, upstream, budget.remaining, budget.limit)
        elif was_low and budget.is_ample:
            self._metrics.set(UPSTREAM_LOW, upstream, value=0.0)
            _log.warning("%s: upstream takes %d of %d requests again", upstream, budget.remaining, budget.limit)
