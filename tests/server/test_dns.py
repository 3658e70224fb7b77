"""Questions on their way to the forwarders and back: who waits for whom, and what a client gets when nobody answers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
import trio.testing

from kit.descriptors import open_files
from kit.nameserver import FakeServer, fake_server, mute, response, well
from mxart.metrics import Metrics
from mxart.proto.dns import Claims, Rules
from mxart.proto.dns_wire import Question, parse
from mxart.server import metrics as series
from mxart.server.dns import Clients, Responder, Waiting
from mxart.server.dns_forward import Forwarders, patterned, server_of

SECRET = b"s" * 16
CLIENT = "10.1.1.1"


class Bench:
    """A responder, asked as a client asks."""

    def __init__(self, responder: Responder, metrics: Metrics) -> None:
        self.responder = responder
        self._metrics = metrics

    async def ask(
        self, name: str, kind: str = "A", *, client: str = CLIENT, udp: bool = True, cd: bool = False
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0)
        if cd:
            query.flags |= dns.flags.CD
        found = self.responder.now(query.to_wire(), client, udp=udp)
        if isinstance(found, Waiting):
            found = await self.responder.later(found, client, udp=udp)
        assert found is not None
        answer = dns.message.from_wire(found)
        assert query.is_response(answer)
        return answer

    async def address(self, name: str) -> str:
        answer = await self.ask(name)
        assert answer.rcode() == dns.rcode.NOERROR, answer
        return str(answer.answer[0][0])

    def counted(self, outcome: str) -> float:
        family = self._metrics.families[series.DNS_QUERIES]
        counts = {labels[0]: numbers[0] for labels, numbers in self._metrics.values(family)}
        return counts.get(outcome, 0)


@asynccontextmanager
async def responder(*servers: FakeServer | str, networks: tuple[str, ...] = ("10.0.0.0/8",)) -> AsyncIterator[Bench]:
    metrics = Metrics(series.families(()), 1)
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    rules = Rules(Claims(["docker.io", "*.corp.test"]), ["10.0.0.5"], 60, recursive=bool(addresses))
    forwarders = Forwarders(addresses, SECRET) if addresses else None
    async with trio.open_nursery() as nursery:
        yield Bench(Responder(rules, Clients(networks), forwarders, metrics, nursery), metrics)
        nursery.cancel_scope.cancel()


def refuses(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


async def test_what_nobody_claims_is_asked_for_once_and_then_known() -> None:
    async with fake_server() as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert await bench.address("A.Test") == "192.0.2.1"
        assert upstream.udp == ["a.test."]
        assert (bench.counted("forwarded"), bench.counted("cached")) == (1, 1)
        assert await bench.address("docker.io") == "10.0.0.5"
        assert upstream.udp == ["a.test."]
        await bench.ask("a.test", "AAAA")
        await bench.ask("a.test", cd=True)
        assert upstream.udp == ["a.test."] * 3


async def test_equal_questions_share_one_flight_even_if_the_first_client_leaves() -> None:
    async with fake_server(mute) as upstream, responder(upstream) as bench, trio.open_nursery() as nursery:
        found: list[str] = []

        async def ask() -> None:
            found.append(await bench.address("a.test"))

        impatient = trio.CancelScope()

        async def leave() -> None:
            with impatient:
                await ask()

        nursery.start_soon(leave)
        await upstream.heard.wait()
        for _ in range(20):
            nursery.start_soon(ask)
        impatient.cancel()
        await trio.testing.wait_all_tasks_blocked()
        upstream.behave = well  # what it is asked next, because it has said nothing, it answers
        while len(found) < 20:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert set(found) == {"192.0.2.1"}
        assert len(upstream.udp) == 2


async def test_every_question_goes_out_from_a_port_and_with_an_id_of_its_own() -> None:
    async with fake_server() as upstream, responder(upstream) as bench:
        for number in range(40):
            await bench.ask(f"n{number}.test")
        ports, ids = zip(*upstream.sources, strict=True)
        assert len(set(ports)) > 30
        assert len(set(ids)) > 30


async def test_nothing_of_a_clients_own_edns_goes_on() -> None:
    """Cookies are between two neighbours; a client's subnet would make one client's answer everybody's."""
    async with fake_server() as upstream, responder(upstream) as bench:
        option = dns.edns.GenericOption(65001, b"private matter")
        query = dns.message.make_query("a.test", "A", use_edns=0, options=[option]).to_wire()
        waiting = bench.responder.now(query, CLIENT, udp=True)
        assert isinstance(waiting, Waiting)
        await bench.responder.later(waiting, CLIENT, udp=True)
        sent = dns.message.from_wire(upstream.wires[0])
        assert (sent.edns, sent.options, sent.payload) == (0, (), 1232)
        assert sent.flags & dns.flags.RD


async def test_wrong_ids_and_wrong_questions_are_not_believed() -> None:
    def forge(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> list[bytes]:
        other = response(query, address="203.0.113.6").to_wire()
        wrong_id = bytes([other[0] ^ 1]) + other[1:]
        elsewhere = response(dns.message.make_query("b.test", "A", id=query.id), address="203.0.113.6").to_wire()
        return [wrong_id, elsewhere, b"", b"junk", other[:20], response(query).to_wire()]

    async with fake_server(forge) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"


async def test_a_crowd_of_wrong_answers_makes_us_ask_over_tcp() -> None:
    def flood(query: dns.message.QueryMessage, _server: FakeServer, tcp: bool) -> list[bytes]:
        if tcp:
            return [response(query).to_wire()]
        other = response(query, address="203.0.113.6").to_wire()
        return [bytes([other[0] ^ number, *other[1:]]) for number in range(1, 40)]

    async with fake_server(flood) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert upstream.tcp == ["a.test."]


async def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    def cut(query: dns.message.QueryMessage, _server: FakeServer, tcp: bool) -> bytes:
        reply = response(query)
        if not tcp:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return reply.to_wire()

    async with fake_server(cut) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert (upstream.udp, upstream.tcp) == (["a.test."], ["a.test."])


async def test_a_tcp_answer_that_breaks_off_is_a_failure_and_soon() -> None:
    def cut(query: dns.message.QueryMessage, _server: FakeServer, tcp: bool) -> bytes | None:
        reply = response(query)
        reply.flags |= dns.flags.TC
        return None if tcp else reply.to_wire()

    async with fake_server(cut) as upstream, responder(upstream) as bench:
        assert (await bench.ask("a.test")).rcode() == dns.rcode.SERVFAIL
        assert upstream.tcp


async def test_the_next_forwarder_is_asked_when_one_is_silent_and_the_silent_one_comes_last_for_a_while() -> None:
    async with fake_server(mute) as silent, fake_server() as good, responder(silent, good) as bench:
        for name in ("a.test", "b.test"):  # once may be the name's fault
            with trio.fail_after(2):
                assert await bench.address(name) == "192.0.2.1"
        assert silent.udp == ["a.test.", "b.test."]
        with trio.fail_after(2):
            assert await bench.address("c.test") == "192.0.2.1"
        assert silent.udp == ["a.test.", "b.test."]
        assert good.udp == ["a.test.", "b.test.", "c.test."]


async def test_a_forwarder_that_is_slow_about_one_name_stays_the_first() -> None:
    def slow_about_one(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes | None:
        return None if query.question[0].name.to_text().lower() == "slow.test." else response(query).to_wire()

    async with fake_server(slow_about_one) as first, fake_server() as second, responder(first, second) as bench:
        for name in ("a.test", "slow.test", "b.test"):
            assert await bench.address(name) == "192.0.2.1"
        assert first.udp == ["a.test.", "slow.test.", "b.test."]
        assert second.udp == ["slow.test."]


async def test_a_name_that_nobody_can_answer_is_not_held_against_a_forwarder_that_answers_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def mute_about_one(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes | None:
        return None if query.question[0].name.to_text().lower() == "dead.test." else response(query).to_wire()

    async with fake_server(mute_about_one) as first, fake_server(mute_about_one) as second:
        async with responder(first, second) as bench, trio.open_nursery() as nursery:

            async def meanwhile() -> None:
                await first.heard.wait()
                assert await bench.address("well.test") == "192.0.2.1"

            nursery.start_soon(meanwhile)
            assert (await bench.ask("dead.test")).rcode() == dns.rcode.SERVFAIL
            assert await bench.address("next.test") == "192.0.2.1"
        assert first.udp[-1] == "next.test."
        assert first.address not in caplog.text


async def test_an_answer_to_other_letters_than_ours_is_asked_for_over_tcp() -> None:
    """Whoever guesses the id and the port does not know in which case we wrote the name."""

    def lower(query: dns.message.QueryMessage, _server: FakeServer, tcp: bool) -> bytes:
        wire = response(query, address="192.0.2.1" if tcp else "203.0.113.6").to_wire()
        end = 12 + len(query.question[0].name.to_wire())
        return wire[:12] + wire[12:end].lower() + wire[end:]

    async with fake_server(lower) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert upstream.tcp == ["a.test."]


async def test_an_alias_of_a_claimed_name_keeps_the_addresses_that_it_has() -> None:
    """Its clients would come to us with the alias as their server name, which no repository claims."""

    def alias(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "CNAME", "docker.io."))
        reply.answer.append(dns.rrset.from_text("docker.io.", 60, "IN", "A", "192.0.2.7"))
        return reply.to_wire()

    async with fake_server(alias) as upstream, responder(upstream) as bench:
        answer = await bench.ask("mirror.test")
        assert [str(rrset[0]) for rrset in answer.answer] == ["docker.io.", "192.0.2.7"]
        assert await bench.address("docker.io") == "10.0.0.5", "what is told of it in passing is not believed"


async def test_a_forwarder_where_nobody_listens_costs_no_time() -> None:
    async with fake_server() as gone:
        pass
    async with fake_server() as good, responder(gone, good) as bench:
        with trio.fail_after(0.6):
            assert await bench.address("a.test") == "192.0.2.1"


@pytest.mark.parametrize("rcode", [2, 5, 9])
async def test_a_forwarder_that_cannot_answer_is_not_the_last_word(rcode: int) -> None:
    def fails(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.Rcode(rcode))
        return reply.to_wire()

    async with fake_server(fails) as bad, fake_server() as good, responder(bad, good) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert len(bad.udp) == 1
        # It is alive: other names are asked of it first again.
        await bench.ask("b.test")
        assert bad.udp == ["a.test.", "b.test."]


async def test_when_all_forwarders_cannot_it_is_a_failure_at_once_and_remembered_briefly() -> None:
    async with fake_server(refuses) as one, fake_server(refuses) as two, responder(one, two) as bench:
        with trio.fail_after(1):
            answer = await bench.ask("a.test")
            assert answer.rcode() == dns.rcode.SERVFAIL
            assert [option.code for option in answer.options if isinstance(option, dns.edns.EDEOption)] == [0]
            assert (await bench.ask("a.test")).rcode() == dns.rcode.SERVFAIL
        assert (len(one.udp), len(two.udp)) == (1, 1)
        assert bench.counted("failed") == 2


async def test_when_nobody_answers_clients_are_told_before_they_give_up() -> None:
    async with fake_server(mute) as one, fake_server(mute) as two, responder(one, two) as bench:
        began = trio.current_time()
        answer = await bench.ask("a.test")
        assert trio.current_time() - began < 4
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert [option.code for option in answer.options if isinstance(option, dns.edns.EDEOption)] == [22]
        assert len(one.udp) == len(two.udp) == 2, "a datagram may be lost: each is asked again"
        assert await bench.address("docker.io") == "10.0.0.5"


async def test_a_known_answer_outlives_its_forwarders() -> None:
    def short(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
        return response(query, ttl=1).to_wire()

    async with fake_server(short) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        upstream.behave = refuses
        with trio.fail_after(3):
            while not bench.counted("stale"):
                answer = await bench.ask("a.test")
                assert str(answer.answer[0][0]) == "192.0.2.1"
        assert [option.code for option in answer.options if isinstance(option, dns.edns.EDEOption)] == [3]
        asked = len(upstream.udp)
        await bench.ask("a.test")
        assert len(upstream.udp) == asked, "who failed just now is not asked for each client"


async def test_a_name_above_a_claimed_one_is_not_denied() -> None:
    def nothing(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    async with fake_server(nothing) as upstream, responder(upstream) as bench:
        assert (await bench.ask("corp.test")).rcode() == dns.rcode.NOERROR
        assert (await bench.ask("other.test")).rcode() == dns.rcode.NXDOMAIN


async def test_a_forwarder_older_than_edns_is_asked_without_it() -> None:
    def old(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
        if query.edns < 0:
            return response(query).to_wire()
        reply = dns.message.make_response(query)
        reply.use_edns(-1)
        reply.set_rcode(dns.rcode.FORMERR)
        return reply.to_wire()

    async with fake_server(old) as upstream, responder(upstream) as bench:
        assert await bench.address("a.test") == "192.0.2.1"
        assert len(upstream.udp) == 2


@pytest.mark.parametrize("name", ["registry.example.test", "a.io"])
async def test_a_question_of_ours_that_comes_back_is_noticed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The forwarder's own forwarder is this server: every round trip would make another one."""
    bench: Bench

    def circle(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes | None:
        found = bench.responder.now(query.to_wire(), "10.9.9.9", udp=True)
        assert isinstance(found, bytes)
        return found

    async with fake_server(circle) as upstream, responder(upstream) as bench:
        with trio.fail_after(1):
            assert (await bench.ask(name)).rcode() == dns.rcode.SERVFAIL
        assert len(upstream.udp) == 1
        assert f"our own question about {name} came back from 10.9.9.9" in caplog.text


def test_the_pattern_of_our_questions_keeps_the_name_and_is_not_what_clients_write() -> None:
    for name in ("registry-1.docker.io", "a.b", "1.2.3.4.in-addr.arpa", "x" * 60 + ".test"):
        found = question_of(name)
        for secret in (SECRET, secrets.token_bytes(16)):
            written, letters = patterned(found, secret)
            assert written.lower() == found.name
            assert written != found.name
            assert letters == sum(chr(byte).isalpha() for byte in name.encode())


def question_of(name: str) -> Question:
    question = parse(dns.message.make_query(name, "A").to_wire()).question
    assert question is not None
    return question


async def test_a_flood_of_names_is_bounded_in_all_and_for_each_client() -> None:
    async with fake_server(mute) as upstream, responder(upstream) as bench, trio.open_nursery() as nursery:
        files = open_files()
        waiting = failed = 0
        for number in range(3000):
            query = dns.message.make_query(f"n{number}.test", "A").to_wire()
            found = bench.responder.now(query, CLIENT, udp=True)
            if isinstance(found, Waiting):
                waiting += 1
                nursery.start_soon(_later, bench.responder, found)
                await trio.lowlevel.checkpoint()
            else:
                failed += 1
        assert waiting <= 512
        assert failed == 3000 - waiting
        assert open_files() - files <= 600
        assert await bench.address("docker.io") == "10.0.0.5", "our own names are served all the same"
        nursery.cancel_scope.cancel()


async def _later(responder: Responder, waiting: Waiting, client: str = CLIENT) -> None:
    await responder.later(waiting, client, udp=True)


async def test_one_client_that_waits_for_everything_leaves_room_for_others() -> None:
    async with fake_server(mute) as upstream, responder(upstream) as bench, trio.open_nursery() as nursery:
        query = dns.message.make_query("a.test", "A").to_wire()
        for _ in range(600):
            found = bench.responder.now(query, CLIENT, udp=True)
            if isinstance(found, Waiting):
                nursery.start_soon(_later, bench.responder, found)
                await trio.lowlevel.checkpoint()
        assert isinstance(bench.responder.now(query, CLIENT, udp=True), bytes)
        assert isinstance(bench.responder.now(query, "10.2.2.2", udp=True), Waiting)
        nursery.cancel_scope.cancel()


async def test_one_client_that_asks_for_everything_leaves_others_their_questions() -> None:
    """As a web page does that looks up a thousand names whose servers are silent."""
    async with fake_server(mute) as upstream, responder(upstream) as bench, trio.open_nursery() as nursery:
        for client in ("10.1.1.1", "10.2.2.2", "10.3.3.3"):
            begun = 0
            for number in range(300):
                query = dns.message.make_query(f"n{number}.of-{client}.test", "A").to_wire()
                found = bench.responder.now(query, client, udp=True)
                if isinstance(found, Waiting):
                    begun += 1
                    nursery.start_soon(_later, bench.responder, found, client)
                    await trio.lowlevel.checkpoint()
            assert 20 < begun < 256, client
        nursery.cancel_scope.cancel()


async def test_strangers_are_refused_told_in_the_log_now_and_then_and_are_no_weapon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with responder() as bench:
        query = dns.message.make_query("docker.io", "A").to_wire()
        answered = 0
        for number in range(1000):
            assert not bench.responder.may_ask(f"203.0.113.{number % 200}")
            answered += bench.responder.stranger(query) is not None
        assert 1 <= answered <= 200
        assert len(caplog.records) == 1
        assert "203.0.113.0" in caplog.text
        assert bench.counted("stranger") == 1000


def test_clients_are_known_by_their_networks_in_either_family() -> None:
    clients = Clients(["10.0.0.0/8", "fe80::/10", "::1/128"])
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "::1"):
        assert clients.include(address), address
    for address in ("11.0.0.1", "::ffff:11.0.0.1", "2001:db8::1", "127.0.0.1"):
        assert not clients.include(address), address


def test_forwarders_are_named_with_or_without_a_port() -> None:
    for text, shown in (
        ("9.9.9.9", "9.9.9.9:53"),
        ("9.9.9.9:5353", "9.9.9.9:5353"),
        ("2620:fe::fe", "[2620:fe::fe]:53"),
        ("[2620:fe::fe]:5353", "[2620:fe::fe]:5353"),
        ("[2620:fe::fe]", "[2620:fe::fe]:53"),
    ):
        assert str(server_of(text)) == shown


async def test_cancelled_anywhere_nothing_stays_open() -> None:
    for wait in (0.0, 0.01, 0.45):
        async with fake_server(mute) as upstream:
            before = open_files()
            async with responder(upstream) as bench:
                with trio.move_on_after(wait):
                    await bench.ask("a.test")
            assert open_files() == before
