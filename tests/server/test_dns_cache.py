"""What is kept of the forwarders' answers: for how long, and how much."""

from __future__ import annotations

from mxart.proto.dns import Key
from mxart.proto.dns_kept import Kept
from mxart.server.dns_cache import DnsCache


def key(number: int) -> Key:
    return Key(b"\x04%04d\x04test\x00" % number, 1, 1, do=False, cd=False)


def kept(lifetime: int = 60, size: int = 20) -> Kept:
    return Kept(0, False, (1, 0, 0), bytes(size), ((6, lifetime),), lifetime)


def test_an_answer_is_fresh_then_stale_then_forgotten() -> None:
    cache = DnsCache()
    cache.put(key(1), kept(60), 1000.0)
    fresh = cache.get(key(1), 1059.0)
    assert fresh is not None
    assert (fresh.fresh, fresh.age) == (True, 59.0)
    stale = cache.get(key(1), 1060.0)
    assert stale is not None
    assert (stale.fresh, stale.retry) == (False, True)
    assert cache.get(key(1), 1060.0 + 86400) is None
    assert len(cache) == 0


def test_after_a_failure_stale_answers_are_given_at_once_for_some_seconds() -> None:
    cache = DnsCache()
    cache.put(key(1), kept(60), 0.0)
    cache.failed(key(1), 100.0)
    assert not cache.has_failed(key(1), 100.0), "there is something to answer with"
    for now, retry in ((104.9, False), (105.0, True)):
        found = cache.get(key(1), now)
        assert found is not None
        assert found.retry is retry


def test_a_failure_is_remembered_briefly() -> None:
    cache = DnsCache()
    cache.failed(key(1), 100.0)
    assert cache.has_failed(key(1), 104.9)
    assert not cache.has_failed(key(1), 105.0)
    cache.failed(key(1), 110.0)
    cache.put(key(1), kept(0), 111.0)
    assert not cache.has_failed(key(1), 111.0)
    assert cache.get(key(1), 111.0) is None, "not to be kept"


def test_entries_and_bytes_are_bounded_and_the_least_used_goes_first() -> None:
    cache = DnsCache(entries=3)
    for number in range(3):
        cache.put(key(number), kept(), 0.0)
    assert cache.get(key(0), 1.0) is not None
    cache.put(key(3), kept(), 1.0)
    assert [cache.get(key(number), 1.0) is not None for number in range(4)] == [True, False, True, True]

    small = DnsCache(size=10_000)
    for number in range(100):
        small.put(key(number), kept(size=1000), 0.0)
    assert 1 <= len(small) < 10
    small.put(key(1), kept(size=20_000), 0.0)
    assert small.get(key(1), 0.0) is None, "too large to be worth it"


def test_failures_do_not_pile_up() -> None:
    cache = DnsCache(entries=40)
    for number in range(1000):
        cache.failed(key(number), 0.0)
    assert not cache.has_failed(key(0), 0.0)
    assert cache.has_failed(key(999), 0.0)


def test_putting_an_answer_again_counts_it_once() -> None:
    cache = DnsCache(size=5_000)
    for _ in range(100):
        cache.put(key(1), kept(size=1000), 0.0)
    cache.put(key(2), kept(size=1000), 0.0)
    assert len(cache) == 2
