"""Users of a whole server: logins at every worker, what one may not do to another's, and what survives what."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from kit.servers import Mxart, mxart, wait_until
from mxart.cli import main

CONFIG = """
[repository.oci]
format = "oci"
kind = "local"
path = "/"
[repository.inner]
format = "oci"
kind = "local"
path = "/inner"
[[permission]]
repository = "inner"
groups = "core"
actions = ["read", "publish", "overwrite", "delete"]
"""
PASSWORD = "correct horse"
BLOB = b"some bytes of a layer"
DIGEST = f"sha256:{sha256(BLOB).hexdigest()}"


class Shop:
    """A server, and what clients ask it, each time on a connection of its own: by whichever worker."""

    def __init__(self, server: Mxart) -> None:
        self.server = server

    def command(self, *arguments: str, stdin: str = "") -> str:
        done = CliRunner().invoke(main, ["--data", str(self.server.data), *arguments], input=stdin)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def user(self, name: str) -> str:
        self.command("user", "add", name, "--password-stdin", stdin=PASSWORD)
        return basic(name)

    def ask(
        self, method: str, target: str, shown: str = "", body: bytes | None = None, kind: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        host, _, port = self.server.address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        fields = {**({"authorization": shown} if shown else {}), **({"content-type": kind} if kind else {})}
        try:
            connection.request(method, target, body=body, headers=fields)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def status(self, method: str, target: str, shown: str = "", body: bytes | None = None) -> int:
        return self.ask(method, target, shown, body)[0]

    def token(self, shown: str, scope: str) -> str:
        target = f"/-/token?service={self.server.address}&scope={scope}"
        return f"Bearer {json.loads(self.ask('GET', target, shown)[2])['token']}"

    def begin(self, package: str, shown: str) -> str:
        status, fields, _ = self.ask("POST", f"/v2/{package}/blobs/uploads/", shown)
        assert status == 202
        return fields["location"].partition(self.server.address)[2] or fields["location"]

    def push(self, package: str, shown: str) -> None:
        assert self.status("POST", f"/v2/{package}/blobs/uploads/?digest={DIGEST}", shown, BLOB) == 201


def basic(user: str, password: str = PASSWORD) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with mxart(tmp_path, CONFIG, workers=2) as server:
        yield Shop(server)


def test_an_upload_is_its_users_and_nobody_elses(shop: Shop) -> None:
    ann, bob = shop.user("ann"), shop.user("bob")
    place = shop.begin("team/app", ann)
    for method, body in (("PATCH", BLOB), ("GET", None), ("DELETE", None), ("PUT", BLOB)):
        target = f"{place}?digest={DIGEST}" if method == "PUT" else place
        assert shop.status(method, target, bob, body) == 404, method
        assert shop.status(method, target, "", body) == 401, method
    assert shop.status("PATCH", place, ann, BLOB) == 202
    # By a token of hers as well: it is the same user.
    token = shop.token(ann, "repository:team/app:pull,push")
    assert shop.status("PUT", f"{place}?digest={DIGEST}", token) == 201
    assert shop.ask("GET", f"/v2/team/app/blobs/{DIGEST}")[2] == BLOB


def test_what_one_may_not_read_is_not_mounted(shop: Shop) -> None:
    ann, core = shop.user("ann"), shop.user("cora")
    shop.command("group", "add", "core")
    shop.command("group", "join", "core", "cora")
    shop.push("inner/app", core)
    assert shop.status("GET", f"/v2/inner/app/blobs/{DIGEST}", ann) == 403
    mount = f"/v2/mine/blobs/uploads/?mount={DIGEST}&from=inner/app"
    assert shop.status("POST", mount, ann) == 202
    assert shop.status("POST", f"/v2/mine/blobs/uploads/?mount={DIGEST}", ann) == 202
    assert shop.status("GET", f"/v2/mine/blobs/{DIGEST}", ann) == 404
    # Nor by a signed token that was not asked for the other repository.
    assert shop.status("POST", mount, shop.token(core, "repository:mine:pull,push")) == 202
    both = "repository:mine:pull,push+repository:inner/app:pull"
    assert shop.status("POST", mount, shop.token(core, both)) in {201, 202}


def test_a_deleted_user_is_out_while_the_token_lives(shop: Shop) -> None:
    token = shop.token(shop.user("ann"), "repository:team/app:pull,push")
    assert {shop.status("POST", "/v2/team/app/blobs/uploads/", token) for _ in range(6)} == {202}
    place = shop.begin("team/app", token)
    shop.command("user", "delete", "ann")
    assert {shop.status("POST", "/v2/team/app/blobs/uploads/", token) for _ in range(6)} == {401}
    again = shop.user("ann")
    assert {shop.status("POST", "/v2/team/app/blobs/uploads/", token) for _ in range(6)} == {401}
    assert shop.status("PATCH", place, token, BLOB) == 401
    assert shop.status("POST", "/v2/team/app/blobs/uploads/", again) == 202


def test_logins_and_tokens_survive_a_restart_and_a_killed_worker(shop: Shop, tmp_path: Path) -> None:
    ann = shop.user("ann")
    token = shop.token(ann, "repository:team/app:push")
    made = "Bearer " + shop.command("token", "create", "--user", "ann", "--name", "ci")
    children = f"/proc/{shop.server.service.pid}/task/{shop.server.service.pid}/children"
    for pid in Path(children).read_text().split():
        os.kill(int(pid), signal.SIGKILL)

    def back() -> bool:
        try:
            return shop.status("GET", "/-/health") == 200
        except OSError:
            return False

    wait_until(back, "new workers")
    for shown in (ann, token, made):
        assert {shop.status("POST", "/v2/team/app/blobs/uploads/", shown) for _ in range(4)} == {202}
    shop.server.stop()
    with mxart(tmp_path, CONFIG.replace('path = "/"\n', 'path = "/"\n'), listen=[shop.server.address]) as server:
        shop.server = server
        for shown in (ann, token, made):
            assert shop.status("POST", "/v2/team/app/blobs/uploads/", shown) == 202


def test_permissions_change_with_a_reload(shop: Shop, tmp_path: Path) -> None:
    ann = shop.user("ann")
    assert shop.status("POST", "/v2/team/app/blobs/uploads/", ann) == 202
    closed = '[[permission]]\nrepository = "oci"\nusers = "ann"\nactions = ["publish"]\neffect = "deny"\n'
    (tmp_path / "mxart.toml").write_text(CONFIG + closed)
    os.kill(shop.server.service.pid, signal.SIGHUP)
    wait_until(lambda: shop.status("POST", "/v2/team/app/blobs/uploads/", ann) == 403, "the new rules")
    wait_until(lambda: "the new configuration is in use" in shop.server.log(), "the old workers' end")
    _, _, body = shop.ask("POST", "/v2/team/app/blobs/uploads/", ann)
    assert "permission[1]" in json.loads(body)["errors"][0]["message"]


def test_a_guesser_is_slowed_down_by_all_workers_together(shop: Shop) -> None:
    ann = shop.user("ann")
    began = time.monotonic()
    statuses = [shop.status("GET", "/v2/", basic("ann", f"guess {number}")) for number in range(12)]
    assert time.monotonic() - began < 10, "or some of them were forgotten meanwhile"
    assert statuses[:8] == [401] * 8
    assert set(statuses[8:]) == {429}
    token = shop.command("token", "create", "--user", "ann", "--name", "ci")
    assert shop.status("GET", "/v2/", f"Bearer {token}") == 200
    status, fields, body = shop.ask("GET", "/v2/", ann)
    assert (status, 0 < int(fields["retry-after"]) <= 10) == (429, True)
    assert json.loads(body)["errors"][0]["code"] == "TOOMANYREQUESTS"


def test_the_logs_tell_of_all_workers(shop: Shop) -> None:
    ann = shop.user("ann")
    shop.push("team/app", ann)
    wait_until(lambda: '"user":"ann"' in shop.server.log(), "the exchange's line")
    for _ in range(6):
        assert shop.status("POST", "/v2/inner/app/blobs/uploads/", ann) == 403
    lines = [json.loads(line) for line in (shop.server.data / "audit" / "audit.jsonl").read_text().splitlines()]
    told = [(line.get("who"), line["action"], line.get("repository"), line["outcome"]) for line in lines]
    assert told == [
        (None, "manage", None, "done"),
        ("ann", "publish", "oci", "done"),
        *[("ann", "publish", "inner", "denied")] * 6,
    ]
