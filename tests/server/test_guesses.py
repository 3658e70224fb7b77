"""Guessing passwords becomes slow, for whoever guesses; the right owner comes in all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from kit.access import SUM, Site, basic, bearer
from mxart.errors import TooManyRequests
from mxart.message import Peer
from mxart.server import passwords
from mxart.server.guesses import DELAY, Guesses
from mxart.server.rates import RateTable

PASSWORD = "correct horse"
APP = f"/v2/app/blobs/{SUM}"
CONFIG = '[repository.oci]\nformat = "oci"\nkind = "local"\npath = "/"\n'


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


def guesses() -> tuple[Guesses, Clock]:
    clock = Clock()
    return Guesses(RateTable(rows=64), clock), clock


def test_after_a_few_wrong_ones_an_address_waits_for_that_user_and_is_told_how_long() -> None:
    table, clock = guesses()
    for _ in range(8):
        assert table.delay("ann", "192.0.2.1") == 0
        table.wrong("ann", "192.0.2.1")
    with pytest.raises(TooManyRequests, match="try again in 10 seconds") as caught:
        table.delay("ann", "192.0.2.1")
    assert caught.value.retry_after == pytest.approx(10)
    # Others, and elsewhere, nobody waits.
    assert table.delay("bob", "192.0.2.1") == table.delay("ann", "192.0.2.2") == 0
    clock.seconds += 10
    assert table.delay("ann", "192.0.2.1") == 0
    table.wrong("ann", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        table.delay("ann", "192.0.2.1")


def test_an_address_that_tries_many_users_waits_too_and_so_does_its_whole_network() -> None:
    table, _ = guesses()
    for number in range(40):
        table.wrong(f"user{number}", f"2001:db8::{number + 1}")
    with pytest.raises(TooManyRequests):
        table.delay("ann", "2001:db8::ffff")
    assert table.delay("ann", "2001:db8:0:1::1") == 0


def test_guesses_from_everywhere_slow_strangers_down_and_lock_nobody_out() -> None:
    table, clock = guesses()
    table.right("ann", "198.51.100.7")
    for number in range(60):
        table.wrong("ann", f"192.0.2.{number}")
    assert table.delay("ann", "203.0.113.1") == DELAY
    assert table.delay("ann", "198.51.100.7") == 0  # where she has logged in of late
    assert table.delay("bob", "203.0.113.1") == 0
    clock.seconds += 300
    assert table.delay("ann", "203.0.113.1") == 0


def peer(address: str) -> Peer:
    return Peer(address, 1)


async def test_a_server_slows_guesses_down_and_lets_the_owner_in(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    site = Site(tmp_path, CONFIG)
    site.manage.create_user("ann", PASSWORD)
    owner, attacker = peer("198.51.100.7"), peer("192.0.2.1")
    assert (await site.ask(APP, basic("ann", PASSWORD), peer=owner))[0].status == 404
    statuses = [(await site.ask(APP, basic("ann", f"guess {n}"), peer=attacker))[0] for n in range(10)]
    assert [response.status for response in statuses] == [401] * 8 + [429] * 2
    assert statuses[-1].headers.get("retry-after") == "10"
    # Not even the right one is looked at, so nothing is learnt by going on.
    assert (await site.ask(APP, basic("ann", PASSWORD + " "), peer=attacker))[0].status == 429
    assert (await site.ask("/-/token", basic("ann", "guess"), peer=attacker))[0].status == 429
    # The owner goes on; so does whoever shows a token, from the same address even.
    assert (await site.ask(APP, basic("ann", PASSWORD), peer=owner))[0].status == 404
    _, text = site.manage.create_token("ann", "ci")
    assert (await site.ask(APP, bearer(text), peer=attacker))[0].status == 404
    site.now += 10
    assert (await site.ask(APP, basic("ann", PASSWORD), peer=attacker))[0].status == 404


async def test_guesses_that_are_sent_at_once_are_counted_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    verify = passwords.verify_password

    def counting(kept: str, password: str) -> bool:
        asked.append(password)
        return verify(kept, password)

    monkeypatch.setattr(passwords, "verify_password", counting)
    site = Site(tmp_path, CONFIG)
    site.manage.create_user("ann", PASSWORD)
    statuses: list[int] = []

    async def guess(number: int) -> None:
        statuses.append((await site.ask(APP, basic("ann", f"guess {number}")))[0].status)

    for _ in range(2):
        statuses.clear()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(guess, number + len(asked) * 100)
        # What is looked at when the last one is counted, is looked at to its end: two at a time.
        assert statuses.count(401) <= 9
        site.now += 10
    assert len(asked) <= 12
    assert set(statuses) == {401, 429}


async def test_the_same_wrong_password_again_is_one_guess(tmp_path: Path) -> None:
    """A machine with an old password, that asks all the time, does not lock out everybody behind its address."""
    site = Site(tmp_path, CONFIG)
    site.manage.create_user("ann", PASSWORD)
    assert {(await site.ask(APP, basic("ann", "of last year")))[0].status for _ in range(50)} == {401}
    assert (await site.ask(APP, basic("ann", PASSWORD)))[0].status == 404


async def test_guessed_tokens_are_counted_too(tmp_path: Path) -> None:
    site = Site(tmp_path, CONFIG)
    guessed = [f"mxt_{n:012x}_{'0' * 48}" for n in range(10)]
    statuses = [(await site.ask(APP, bearer(text)))[0].status for text in guessed]
    assert statuses == [401] * 8 + [429] * 2
