"""A request that comes back to whoever sent it: told at once, in words that say what to set, and never waited for."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from kit.http import get
from kit.proxies import forwarder
from kit.repos import manifest
from kit.servers import Mxart, free_port, mxart, wait_until
from kit.upstream import fake_upstream, say
from mxart.message import Headers
from mxart.via import MAX_HOPS, hops, make_pseudonym, via

TYPE = {"content-type": "application/vnd.oci.image.manifest.v1+json"}
TAG = "a/manifests/1"
BLOB = "a/blobs/sha256:" + "0" * 64


def config(*upstreams: str, names: str = "") -> str:
    listed = ", ".join(f'"{url}"' for url in upstreams)
    return (
        f"[upstreams]\nresolve = {{ {names} }}\n"
        f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = [{listed}]\npath = "/"\nttl = 0\n'
    )


async def pull(server: Mxart, path: str, **headers: str) -> tuple[int, str]:
    with trio.fail_after(20):
        answer = await get(server.port, f"/v2/{path}", headers=headers)
    return answer.status, answer.body.decode()


def warnings(server: Mxart) -> list[str] | None:
    return [line for line in server.log().splitlines() if '"warning"' in line and "loop:" in line] or None


async def test_an_address_translation_that_leads_back_is_a_loop_that_is_named(tmp_path: Path) -> None:
    port = free_port()
    # The name leads to a port that somebody else forwards to us: no table of our own addresses knows it.
    async with forwarder("127.0.0.1", port) as nat:
        origin = f"http://registry.test:{nat.port}"
        settings = config(origin, names='"registry.test" = "127.0.0.1"')
        with mxart(tmp_path, settings, listen=[f"127.0.0.1:{port}"], workers=2) as server:
            for path in (TAG, BLOB):
                asked = len(nat.asked)
                status, body = await pull(server, path)
                assert status == 502
                assert f"loop: {origin} leads back to this server; set upstreams.resolve or nameservers" in body
                assert len(nat.asked) - asked <= 1  # it is not tried again
            lines = wait_until(lambda: warnings(server), "a warning")
            assert f"loop: registry.test:{nat.port} leads back to this server itself; set upstreams.resolve" in lines[0]
            wait_until(lambda: server.log().count('"status":508') == 2 or None, "a line for each request of ours")


async def test_over_tls_it_is_known_by_the_certificate(tmp_path: Path) -> None:
    port = free_port()
    async with forwarder("127.0.0.1", port) as nat:
        origin = f"https://registry.test:{nat.port}"
        settings = config(origin, names='"registry.test" = "127.0.0.1"').replace(
            'path = "/"', 'path = "/"\nhosts = ["registry.test"]'
        )
        with mxart(tmp_path, settings, listen=["127.0.0.1:0", f"127.0.0.1:{port}"], tls=True) as server:
            context = ssl.create_default_context(cafile=str(server.ca))
            stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port, ssl_context=context)
            with trio.fail_after(20):
                await stream.send_all(f"GET /v2/{TAG} HTTP/1.1\r\nHost: registry.test\r\n\r\n".encode())
                answer = b""
                while b"nameservers" not in answer:
                    answer += await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert (
                f"loop: {origin} leads back to this server, which shows a certificate of its own CA" in answer.decode()
            )
            await trio.aclose_forcefully(stream)


async def test_a_stranger_whose_certificate_is_wrong_is_no_loop(tmp_path: Path) -> None:
    async with fake_upstream(tls=trustme.CA().issue_cert("registry.test")) as up:
        settings = config(f"https://registry.test:{up.port}", names='"registry.test" = "127.0.0.1"')
        with mxart(tmp_path, settings) as server:
            status, body = await pull(server, TAG)
            assert status == 502
            assert "certificate is not trusted" in body
            assert "loop" not in body


@pytest.mark.parametrize(("names", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_names_that_lead_to_our_own_listener_are_never_dialled(tmp_path: Path, names: str, host: str) -> None:
    port = free_port()
    origins = [f"http://{name}.test:{port}" for name in ("one", "two")]
    settings = config(*origins, names=f'"one.test" = "{names}", "two.test" = "{names}"')
    with mxart(tmp_path, settings, listen=["127.0.0.1:0", f"{host}:{port}"]) as server:
        status, body = await pull(server, TAG)
        assert status == 502
        for name in ("one", "two"):
            assert f"loop: {name}.test ({names}) resolves to this server; set upstreams.resolve or nameservers" in body
        assert '"status":508' not in server.log()


async def test_a_loop_that_somebody_else_finds_is_told_and_not_tried_again(tmp_path: Path) -> None:
    async with fake_upstream() as up:
        up.default = say("round and round", 508)
        with mxart(tmp_path, config(up.url)) as server:
            status, body = await pull(server, TAG)
            assert (status, up.count()) == (502, 1)
            assert f"{up.url} answers 508" in body


async def test_two_servers_that_mirror_each_other_find_what_neither_has(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    data = manifest("one")
    async with fake_upstream() as up:
        up.on(f"/v2/{TAG}", say(data, headers=TYPE))
        with (
            mxart(tmp_path / "a", config(f"http://127.0.0.1:{ports[1]}", up.url), listen=[f":{ports[0]}"]) as one,
            mxart(tmp_path / "b", config(f"http://127.0.0.1:{ports[0]}", up.url), listen=[f":{ports[1]}"]) as two,
        ):
            with trio.fail_after(5):
                assert await pull(one, TAG) == (200, data.decode())
                assert (await pull(two, BLOB))[0] == 404
            assert up.count(f"/v2/{TAG}") == 1
            assert len(hops(Headers([("via", up.requests[0].headers["via"])]))) == 2
            assert warnings(one)
            assert warnings(two)


async def test_the_name_is_one_for_all_workers_kept_by_a_reload_and_new_with_a_start(tmp_path: Path) -> None:
    async with fake_upstream() as up:
        seen: list[set[str]] = []
        for start in ("first", "second"):
            up.requests.clear()
            with mxart(tmp_path / start, config(up.url), workers=2) as server:
                for number in range(6):
                    await pull(server, f"a/manifests/{number}")
                server.service.process.send_signal(signal.SIGHUP)
                wait_until(lambda: ("reloading the configuration" in server.log()) or None, "a reload")
                for number in range(6, 12):
                    await pull(server, f"a/manifests/{number}", via="1.1 squid.example (squid/5.7), 1.0 fred")
            values = {request.headers["via"] for request in up.requests}
            assert len(values) == 1  # and nothing of a client's own words goes on
            seen.append(values)
        assert seen[0] != seen[1]


async def test_a_request_that_went_through_many_is_refused_before_it_goes_through_more(tmp_path: Path) -> None:
    async with fake_upstream() as up:
        with mxart(tmp_path, config(up.url)) as server:
            few = via(tuple(make_pseudonym() for _ in range(MAX_HOPS - 1)))
            assert (await pull(server, TAG, via=few))[0] == 404
            assert up.requests[0].headers["via"].startswith(few + ", 1.1 mxart-")
            status, body = await pull(server, TAG, via=f"{few}, 1.1 {make_pseudonym()}")
            assert status == 508
            assert f"by {MAX_HOPS} servers like this one" in body
            assert up.count() == 1


def test_our_names_are_found_among_those_of_others() -> None:
    name, other = make_pseudonym(), make_pseudonym()
    assert name != other
    for value in (f"1.1 {name}", f"HTTP/2 {name}:443 (a, comment), 1.0 fred", f"1.1 x ,1.1 {name}"):
        assert hops(Headers([("via", value)])) == (name,)
    assert hops(Headers([("via", via((name,))), ("x", "y"), ("via", f"1.1 squid, 2 {other} (mxart)")])) == (name, other)
    for value in ("", "1.1 mxart", f"1.1 {name}0", f"1.1 {name[:-1]}", f"1.1 x{name}", "1.1 mxart-" + "g" * 32):
        assert hops(Headers([("via", value)])) == ()
    assert hops(Headers()) == ()


async def test_two_servers_that_mirror_each_other_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Both are asked for the same name at one time: each one's question must not join what waits for its answer."""
    ports = free_port(), free_port()
    data = manifest("one")
    statuses: list[int] = []

    async def ask(server: Mxart, path: str) -> None:
        statuses.append((await pull(server, path))[0])

    async with fake_upstream() as up:
        up.default = say(data, headers=TYPE)
        with (
            mxart(tmp_path / "a", config(f"http://127.0.0.1:{ports[1]}", up.url), listen=[f":{ports[0]}"]) as one,
            mxart(tmp_path / "b", config(f"http://127.0.0.1:{ports[0]}", up.url), listen=[f":{ports[1]}"]) as two,
        ):
            with trio.fail_after(10):
                for number in range(12):
                    async with trio.open_nursery() as clients:
                        clients.start_soon(ask, one, f"a/manifests/{number}")
                        clients.start_soon(ask, two, f"a/manifests/{number}")
    assert statuses == [200] * 24
