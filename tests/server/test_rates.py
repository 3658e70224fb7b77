"""A client's rate: never more than the burst and what has come in since, in however many workers."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.servers import Mxart, mxart, program, wait_until
from kit.wire import PEER
from mxart.config import Limits
from mxart.message import Headers, Request
from mxart.metrics import Metrics
from mxart.server.handler import Gate
from mxart.server.metrics import families
from mxart.server.own import OwnPages
from mxart.server.rates import Limiter, Rate, RateTable, client_of, limiter
from mxart.server.routes import Routes
from mxart.via import MAX_HOPS, make_pseudonym, via

SECOND = 1_000_000_000
MONTH = 30 * 86400 * SECOND


@pytest.fixture
def table() -> Iterator[RateTable]:
    made = RateTable(rows=4, key=b"k" * 32)
    yield made
    made.close()


class Clock:
    """Nanoseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = MONTH

    def __call__(self) -> int:
        return self.now


RATES = st.builds(Rate, st.integers(1, 10 * SECOND), st.integers(1, 50))
STEPS = st.lists(st.integers(0, 3 * SECOND), max_size=120)


@given(RATES, STEPS)
def test_in_no_span_of_time_are_more_admitted_than_the_burst_and_the_rate_times_the_span(
    rate: Rate, steps: list[int]
) -> None:
    now, full_at = MONTH, 0
    admitted: list[int] = []
    for step in steps:
        now += step
        full_at, wait = rate.take(full_at, now)
        if not wait:
            admitted.append(now)
        for index, since in enumerate(admitted):
            assert len(admitted) - index <= rate.burst + (now - since) // rate.interval


@given(RATES, STEPS)
def test_who_waits_as_long_as_he_was_told_is_admitted_and_no_sooner(rate: Rate, steps: list[int]) -> None:
    now, full_at = MONTH, 0
    for step in steps:
        now += step
        full_at, wait = rate.take(full_at, now)
        if wait:
            assert rate.take(full_at, now + wait - 1)[1] == 1
            assert rate.take(full_at, now + wait)[1] == 0


@settings(max_examples=30, deadline=None)
@given(RATES, STEPS, st.integers(2, 4))
def test_workers_together_admit_what_one_would(rate: Rate, steps: list[int], workers: int) -> None:
    together, alone, clock = RateTable(rows=4), RateTable(rows=4), Clock()
    try:
        many = [Limiter(together, rate, clock) for _ in range(workers)]
        one = Limiter(alone, rate, clock)
        for number, step in enumerate(steps):
            clock.now += step
            assert many[number % workers].wait("192.0.2.1") == one.wait("192.0.2.1")
    finally:
        together.close()
        alone.close()


_RACE = """
import os, sys
from mxart.server.rates import Rate, RateTable
table, rate = RateTable(rows=1), Rate(1_000_000_000, 20_000)
reading, writing = os.pipe()
for _ in range(4):
    if not os.fork():
        count = 0
        while not table.take("192.0.2.1", rate, 10**15):
            count += 1
        os.write(writing, b"%d\\n" % count)
        os._exit(0)
os.close(writing)
for _ in range(4):
    os.wait()
counts = list(map(int, os.fdopen(reading).read().split()))
print(sum(counts), sum(count > 0 for count in counts))
"""


def test_processes_that_race_for_one_clients_burst_share_exactly_that() -> None:
    done = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, check=True, timeout=60)
    assert done.stdout.split()[0] == b"20000"


def test_clients_do_not_share_a_bucket(table: RateTable) -> None:
    clock = Clock()
    limited = Limiter(table, Rate(SECOND, 1), clock)
    assert limited.wait("192.0.2.1") == 0.0
    assert limited.wait("192.0.2.1") == 1.0
    assert limited.wait("192.0.2.2") == 0.0
    clock.now += SECOND
    assert limited.wait("192.0.2.1") == 0.0


def test_one_customer_of_ipv6_is_a_64(table: RateTable) -> None:
    limited = Limiter(table, Rate(SECOND, 1), Clock())
    assert limited.wait("2001:db8:1:2::1") == 0.0
    assert limited.wait("2001:db8:1:2:ffff::1") > 0.0
    assert limited.wait("2001:db8:1:3::1") == 0.0
    assert client_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert client_of("fe80::1%eth0") == "fe80::/64"
    assert client_of("no address:") == "no address:"


def test_a_flood_of_addresses_neither_grows_the_table_nor_refuses_anybody(table: RateTable) -> None:
    clock = Clock()
    limited = Limiter(table, Rate(SECOND, 1), clock)
    size = len(table._words)
    assert all(limited.wait(f"10.0.{number >> 8}.{number & 255}") == 0.0 for number in range(5000))
    assert len(table._words) == size
    # The last ones are still known.
    assert limited.wait("10.0.19.135") > 0.0


def test_a_slot_whose_time_has_passed_is_anybodys_before_one_that_still_counts(table: RateTable) -> None:
    clock = Clock()
    slow, quick = Limiter(table, Rate(100 * SECOND, 1), clock), Limiter(table, Rate(1, 1), clock)
    assert slow.wait("192.0.2.1") == 0.0
    for number in range(1000):
        clock.now += 10
        assert quick.wait(f"10.0.{number >> 8}.{number & 255}") == 0.0
    assert slow.wait("192.0.2.1") > 0.0


def test_the_burst_is_ten_seconds_of_the_rate_unless_it_is_told() -> None:
    assert Rate.of(Limits()) is None
    assert Rate.of(Limits(requests_per_second=5)) == Rate(SECOND // 5, 50)
    assert Rate.of(Limits(requests_per_second=0.01)) == Rate(100 * SECOND, 1)
    assert Rate.of(Limits(requests_per_second=3, burst=7)) == Rate(333333334, 7)


def test_no_rate_is_no_limiter(table: RateTable) -> None:
    assert limiter(Limits(), table) is None
    assert limiter(Limits(requests_per_second=1), table) is not None


async def test_a_refusal_is_counted_and_worded_for_whoever_asks(table: RateTable) -> None:
    metrics = Metrics(families([]), 1)
    own = OwnPages(metrics, lambda: True, bytes)
    gate = Gate(Routes([]), {}, own, metrics, limiter=Limiter(table, Rate(SECOND, 1), Clock()))

    async def status(target: str) -> int:
        return (await gate.handle(Request("GET", target, "mxart.test", Headers(), PEER))).status

    assert [await status("/x") for _ in range(3)] == [404, 429, 429]
    assert [await status("/-/health?x"), await status("/-/ready")] == [200, 200]
    assert [await status("/-/metrics"), await status("/-/healthy")] == [429, 429]
    assert metrics.render()[0].decode().count("mxart_rate_limited_requests_total 4.0") == 1


async def test_the_limit_comes_before_what_can_be_made_to_fill_the_log(
    table: RateTable, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can write a Via that looks like a loop, and each is a warning."""
    metrics = Metrics(families([]), 1)
    own = OwnPages(metrics, lambda: True, bytes)
    gate = Gate(Routes([]), {}, own, metrics, limiter=Limiter(table, Rate(SECOND, 1), Clock()))
    fields = Headers([("via", via(tuple(make_pseudonym() for _ in range(MAX_HOPS))))])
    asked = [await gate.handle(Request("GET", "/v2/", "mxart.test", fields, PEER)) for _ in range(4)]
    assert [response.status for response in asked] == [508, 429, 429, 429]
    assert (await gate.handle(Request("GET", "/-/health", "mxart.test", fields, PEER))).status == 200
    assert len(caplog.records) == 1


# The program.

CONFIG = """
workers = 2
[limits]
requests_per_second = {rate}
burst = {burst}
"""


def get(server: Mxart, path: str) -> tuple[int, dict[str, str], bytes]:
    host, _, port = server.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_a_client_over_its_rate_is_told_so_as_its_tool_shows_it_and_health_is_never_limited(tmp_path: Path) -> None:
    with mxart(tmp_path, CONFIG.format(rate=0.001, burst=20), workers=2) as server:
        statuses = [get(server, "/v2/")[0] for _ in range(60)]
        assert statuses == [401] * 20 + [429] * 40  # the door asks who is there
        status, fields, body = get(server, "/v2/docker.io/library/alpine/manifests/3")
        assert status == 429
        assert 900 < int(fields["retry-after"]) <= 1000
        (error,) = json.loads(body)["errors"]
        assert error["code"] == "TOOMANYREQUESTS"
        assert error["message"] == "too many requests from 127.0.0.1; the limit is 0.001 a second, and 20 at once"
        assert {get(server, "/-/health")[0] for _ in range(30)} == {200}
        assert {get(server, "/-/ready")[0] for _ in range(3)} == {200}
        form = ("-sS", "--noproxy", "*", "--http2-prior-knowledge", "-w", "%{http_code} %{http_version}")
        over = subprocess.run(
            [program("curl"), *form, f"{server.url}/v2/"], capture_output=True, timeout=20, check=True
        ).stdout.decode()
        assert over.endswith("429 2"), over
        lines = wait_until(lambda: _told(server, 42), "a line for each refusal")
        assert {line["client"] for line in lines} == {"127.0.0.1"}
        # A reload keeps what was counted, and another client has its own.
        server.service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log().count("reloading the configuration") or None, "a reload")
        wait_until(lambda: (get(server, "/v2/")[0] == 429) or None, "still refused")
        assert get(server, "/v2/")[0] == 429


def _told(server: Mxart, count: int) -> list[dict[str, str]] | None:
    lines = [line for line in server.log().splitlines() if '"status":429' in line.replace(" ", "")]
    assert len(lines) <= count
    return [json.loads(line[line.index("{") :]) for line in lines] if len(lines) == count else None
