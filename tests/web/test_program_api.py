"""The API of a whole program, over its sockets: users log in, what they did is there, and jobs survive workers."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kit.servers import Mxart, mxart, wait_until
from mxart.digest import Digest

CONFIG = """
[repository.own]
format = "oci"
kind = "local"
path = "/"
[replicate]
targets = ["http://127.0.0.1:PORT"]
"""
PASSWORD = "correct horse battery"
CONFIG_BLOB = b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": str(Digest.of(CONFIG_BLOB)),
            "size": len(CONFIG_BLOB),
        },
        "layers": [],
    }
).encode()


class Talker:
    """Somebody who calls the API."""

    def __init__(self, server: Mxart, authorization: str = "") -> None:
        self.server = server
        self._fields = {"authorization": authorization} if authorization else {}

    @classmethod
    def basic(cls, server: Mxart, user: str, password: str) -> Talker:
        return cls(server, "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())

    @classmethod
    def admin(cls, server: Mxart) -> Talker:
        return cls.basic(server, "admin", (server.data / "admin-password").read_text().strip())

    def send(self, method: str, target: str, data: bytes | None = None, **fields: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        with_dashes = {name.replace("_", "-"): value for name, value in fields.items()}
        try:
            connection.request(method, target, data, {**self._fields, **with_dashes})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        fields = {"content_type": "application/json"} if body is not None else {}
        status, text = self.send(method, f"/-/api/v1{path}", data, **fields)
        return status, json.loads(text) if text else None

    def push(self, package: str, tag: str) -> None:
        digest = Digest.of(CONFIG_BLOB)
        assert self.send("POST", f"/v2/{package}/blobs/uploads/?digest={digest}", CONFIG_BLOB)[0] == 201
        kind = "application/vnd.oci.image.manifest.v1+json"
        assert self.send("PUT", f"/v2/{package}/manifests/{tag}", MANIFEST, content_type=kind)[0] == 201


@contextmanager
def silent_target() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_from_the_first_login_to_what_the_audit_log_tells(tmp_path: Path) -> None:
    with mxart(tmp_path, CONFIG.replace("PORT", "9"), workers=2) as server:
        nobody, admin = Talker(server), Talker.admin(server)
        assert nobody.call("GET", "/whoami") == (200, {"user": None})
        assert nobody.call("GET", "/users")[0] == 401
        assert admin.call("GET", "/whoami")[1]["user"]["groups"] == ["admins"]
        assert Talker.basic(server, "admin", "wrong password").call("GET", "/whoami")[0] == 401

        assert admin.call("POST", "/users", {"name": "eve", "password": PASSWORD})[0] == 201
        eve = Talker.basic(server, "eve", PASSWORD)
        status, made = eve.call("POST", "/users/eve/tokens", {"name": "ci", "actions": ["read"]})
        assert status == 201
        reader = Talker(server, f"Bearer {made['text']}")
        assert reader.call("GET", "/whoami")[1]["user"]["name"] == "eve"

        eve.push("team/app", "1.0")
        base = "/repositories/own/packages/team%2Fapp"
        status, tag = reader.call("GET", f"{base}/tags/1.0")
        assert (status, tag["digest"]) == (200, str(Digest.of(MANIFEST)))
        assert tag["total"] == len(MANIFEST) + len(CONFIG_BLOB)
        for whoever, expected in ((nobody, 401), (reader, 403), (eve, 403)):
            assert whoever.call("DELETE", f"{base}/tags/1.0")[0] == expected
        assert admin.call("DELETE", f"{base}/tags/1.0")[0] == 204
        assert reader.call("GET", f"{base}/tags/1.0")[0] == 404, "whichever worker is asked"

        assert eve.call("DELETE", f"/users/eve/tokens/{made['token']['id']}")[0] == 204
        assert reader.call("GET", "/whoami")[0] == 401
        status, page = admin.call("GET", "/audit?limit=1000")
        told = {(entry["who"], entry["outcome"], entry["detail"].partition(":")[0]) for entry in page["items"]}
        details = {entry["detail"] for entry in page["items"]}
        assert "POST /-/api/v1/users (user eve)" in details
        assert any(f"token {made['token']['id']} 'ci': read in" in detail for detail in details)
        assert ("admin", "done", f"DELETE /-/api/v1{base}/tags/1.0") in told
        assert ("eve", "denied", f"DELETE /-/api/v1{base}/tags/1.0") in told
        assert PASSWORD not in json.dumps(page)
        assert made["text"] not in json.dumps(page)


def test_a_token_bounds_what_its_bearer_can_get_by_it(tmp_path: Path) -> None:
    """Least of all another token."""
    with mxart(tmp_path, CONFIG.replace("PORT", "9")) as server:
        admin = Talker.admin(server)
        admin.call("POST", "/users", {"name": "eve", "password": PASSWORD})
        eve = Talker.basic(server, "eve", PASSWORD)
        tokens = [
            eve.call("POST", "/users/eve/tokens", {"name": "ci", "actions": ["read"]})[1]["text"],
            eve.call("POST", "/users/eve/tokens", {"name": "all", "expires": "1h"})[1]["text"],
            admin.call("POST", "/users/admin/tokens", {"name": "ci", "actions": ["publish"]})[1]["text"],
        ]
        for token, user in zip(tokens, ("eve", "eve", "admin"), strict=True):
            bearer = Talker(server, f"Bearer {token}")
            assert bearer.call("POST", f"/users/{user}/tokens", {"name": "more", "expires": "never"})[0] == 403
            assert bearer.call("PUT", f"/users/{user}/password", {"password": PASSWORD, "current": PASSWORD})[0] == 403
            assert bearer.call("GET", f"/users/{user}/tokens")[0] == 200
        assert Talker(server, f"Bearer {tokens[2]}").call("GET", "/users")[0] == 403
        assert len(admin.call("GET", "/users/eve/tokens")[1]["items"]) == 2


def test_a_collection_begun_by_a_call_is_a_process_whose_end_every_worker_tells(tmp_path: Path) -> None:
    with mxart(tmp_path, CONFIG.replace("PORT", "9"), workers=2) as server:
        admin = Talker.admin(server)
        admin.push("team/app", "1.0")
        status, job = admin.call("POST", "/gc", {"dry_run": True, "grace": "0"})
        assert (status, job["state"]) == (202, "running")

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = admin.call("GET", f"/jobs/{job['id']}")[1]
            return found if found["state"] != "running" else None

        assert wait_until(ended, "the end of the job")["state"] == "done"
        assert admin.call("GET", "/usage")[1]["items"][0]["files"] == 2


def test_an_image_is_copied_to_another_server_by_one_call(tmp_path: Path) -> None:
    with mxart(tmp_path / "there", CONFIG.replace("PORT", "9")) as there:
        config = CONFIG.replace("PORT", str(there.port))
        with mxart(tmp_path / "here", config, workers=2) as here:
            admin, other = Talker.admin(here), Talker.admin(there)
            admin.push("team/app", "1.0")
            secret = (there.data / "admin-password").read_text().strip()
            wish = {
                "reference": "1.0",
                "target": f"{there.url}/copies/app",
                "tags": ["latest"],
                "username": "admin",
                "password": secret,
            }
            status, job = admin.call("POST", "/repositories/own/packages/team%2Fapp/replications", wish)
            assert status == 202

            def ended() -> dict[str, Any] | None:
                found: dict[str, Any] = admin.call("GET", f"/jobs/{job['id']}")[1]
                return found if found["state"] != "running" else None

            done = wait_until(ended, "the end of the job")
            assert (done["state"], done["result"]["manifests"]) == ("done", 1), done
            assert done["result"]["digests"] == str(Digest.of(MANIFEST))
            assert (done["done"], done["total"]) == (len(MANIFEST) + len(CONFIG_BLOB),) * 2
            tags = other.call("GET", "/repositories/own/packages/copies%2Fapp/tags")[1]["items"]
            assert [(tag["name"], tag["digest"]) for tag in tags] == [
                ("1.0", str(Digest.of(MANIFEST))),
                ("latest", str(Digest.of(MANIFEST))),
            ]
            details = [entry["detail"] for entry in admin.call("GET", "/audit?path=team/app")[1]["items"]]
            assert any(f"(to {there.url}/copies/app)" in detail for detail in details)
            assert secret not in json.dumps([details, done])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_whose_worker_dies_is_told_as_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    with silent_target() as port, mxart(tmp_path, CONFIG.replace("PORT", str(port)), workers=2) as server:
        admin = Talker.admin(server)
        admin.push("team/app", "1.0")
        wish = {
            "reference": "1.0",
            "target": f"http://127.0.0.1:{port}/team/app",
            "username": "x",
            "password": PASSWORD,
        }
        status, job = admin.call("POST", "/repositories/own/packages/team%2Fapp/replications", wish)
        assert status == 202
        assert admin.call("GET", f"/jobs/{job['id']}")[1]["state"] == "running"
        children = Path(f"/proc/{server.service.pid}/task/{server.service.pid}/children").read_text().split()
        held = server.data / "jobs" / f"{job['id']}.alive"
        runs = [pid for pid in children if str(held) in _opened(pid)]
        assert len(runs) == 1
        os.kill(int(runs[0]), number)

        def interrupted() -> bool:
            try:
                return bool(admin.call("GET", f"/jobs/{job['id']}")[1]["state"] == "interrupted")
            except OSError:  # the connection went to the one that is gone
                return False

        wait_until(interrupted, "the job is interrupted")
        for file in (server.data / "jobs").iterdir():
            assert PASSWORD.encode() not in file.read_bytes()


def _opened(pid: str) -> Iterator[str]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed by now
            yield os.readlink(f"/proc/{pid}/fd/{number}")


def test_hostile_bodies_are_refused_before_they_are_taken_in(tmp_path: Path) -> None:
    with mxart(tmp_path, CONFIG.replace("PORT", "9")) as server:
        admin, nobody = Talker.admin(server), Talker(server)
        for data in (b'{"name":"' + b"a" * (10 << 20) + b'"}', b"[" * (10 << 20)):
            for whoever, expected in ((admin, 413), (nobody, 401)):
                try:
                    status, _ = whoever.send("POST", "/-/api/v1/users", data, content_type="application/json")
                except (BrokenPipeError, ConnectionResetError):
                    continue  # answered, and closed while the client was still sending
                assert status == expected
        deep = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert admin.send("POST", "/-/api/v1/users", deep, content_type="application/json")[0] == 400
        form = b"name=eve&password=correct+horse"
        kind = "application/x-www-form-urlencoded"
        assert admin.send("POST", "/-/api/v1/users", form, content_type=kind)[0] == 415
        assert len(admin.call("GET", "/users")[1]["items"]) == 1
