"""Whole programs: into this server as a user of it, out of it by the command and by a job of the API."""

from __future__ import annotations

import base64
import json
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trio

from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, Registry, image, index, running, tar
from kit.replicate_command import APP, STALLED, command, environment, offered, run
from kit.servers import Mxart, mxart, wait_until

ARM, AMD = image(tar({"arm": b"1" * 3000}), architecture="arm64"), image(tar({"amd": b"2" * 3000}))
BOTH = index({"arm64": ARM, "amd64": AMD})
SIGNED = image(tar({"signature": b"s"}))
SIGNATURE = Blob(
    OCI_MANIFEST,
    json.dumps(json.loads(SIGNED.manifest.data) | {"subject": BOTH.descriptor(), "artifactType": "a/sig"}).encode(),
)
LISTED = f"sha256-{BOTH.digest[7:]}"


def fill(registry: Registry) -> None:
    """An index of two images as app:1, signed."""
    for item in (ARM, AMD):
        registry.publish_image("app", item.manifest.digest, item)
    registry.publish("app", *SIGNED.blobs)
    registry.tag("app", SIGNATURE.digest, SIGNATURE)
    registry.tag("app", "1", BOTH)
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [SIGNATURE.descriptor()]}
    registry.tag("app", LISTED, Blob(OCI_INDEX, json.dumps(listed).encode()))


def config(*targets: str) -> str:
    named = ", ".join(f'"{url}"' for url in targets)
    return f'[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n[replicate]\ntargets = [{named}]\n'


def password(server: Mxart) -> str:
    return str(server.data / "admin-password")


def get(url: str) -> bytes:
    accept = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as reply:
        return bytes(reply.read())


def call(server: Mxart, method: str, path: str, body: object = None) -> dict[str, object]:
    """The API, as the administrator."""
    secret = (server.data / "admin-password").read_text().strip()
    fields = {
        "Authorization": "Basic " + base64.b64encode(f"admin:{secret}".encode()).decode(),
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"{server.url}/-/api/v1{path}", data, fields, method=method)
    with urllib.request.urlopen(asked, timeout=10) as reply:
        found: dict[str, object] = json.load(reply)
        return found


def whole(url: str, name: str) -> None:
    """Everything is at a registry, byte for byte."""
    assert get(f"{url}/v2/{name}/manifests/1") == BOTH.data
    for manifest in (BOTH, ARM.manifest, AMD.manifest, SIGNATURE):
        assert get(f"{url}/v2/{name}/manifests/{manifest.digest}") == manifest.data
    for blob in (*ARM.blobs, *AMD.blobs, *SIGNED.blobs):
        assert get(f"{url}/v2/{name}/blobs/{blob.digest}") == blob.data


async def test_into_this_server_and_on_to_another_registry(tmp_path: Path) -> None:
    first, last = Registry(tmp_path / "a", tmp_path / "a-run"), Registry(tmp_path / "b", tmp_path / "b-run")
    with running(first), running(last), mxart(tmp_path / "mxart", config(last.url), workers=2) as server:
        fill(first)
        login = ["--target-user", "admin", "--target-password-file", password(server)]
        done = await run(command(f"{first.url}/app:1", f"{server.url}/team/app", tmp_path / "state", *login))
        assert done.returncode == 0, done.stderr
        whole(server.url, "team/app")
        listed = json.loads(get(f"{server.url}/v2/team/app/referrers/{BOTH.digest}"))
        assert [item["digest"] for item in listed["manifests"]] == [SIGNATURE.digest]

        done = await run(command(f"{server.url}/team/app:1", f"{last.url}/by/command", tmp_path / "state"))
        assert done.returncode == 0, done.stderr
        whole(last.url, "by/command")
        assert SIGNATURE.digest.encode() in get(f"{last.url}/v2/by/command/manifests/{LISTED}")

        wish = {"target": f"{last.url}/by/job", "reference": "1"}
        path = "/repositories/own/packages/team/app/replications"
        job = call(server, "POST", path.replace("team/app", "team%2Fapp"), wish)

        def ended() -> dict[str, object] | None:
            found = call(server, "GET", f"/jobs/{job['id']}")
            return found if found["state"] != "running" else None

        found = await trio.to_thread.run_sync(wait_until, ended, "the job's end")
        assert found["state"] == "done", found
        whole(last.url, "by/job")
        assert SIGNATURE.digest.encode() in get(f"{last.url}/v2/by/job/manifests/{LISTED}")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            call(server, "POST", path.replace("team/app", "team%2Fapp"), wish | {"target": f"{first.url}/x"})


async def test_who_may_not_push_here_is_told_in_one_line(tmp_path: Path) -> None:
    first = Registry(tmp_path / "a", tmp_path / "a-run")
    with running(first), mxart(tmp_path / "mxart", config()) as server:
        fill(first)
        words = command(f"{first.url}/app:1", f"{server.url}/team/app", tmp_path / "state")
        for more in ([], ["--target-user", "admin", "--target-password-file", __file__]):
            done = await run([*words, *more])
            assert (done.returncode, done.stdout) == (1, b"")
            assert len(done.stderr.splitlines()) == 1
            assert b"401" in done.stderr or b"refuses" in done.stderr


async def test_killed_in_the_middle_of_a_chunk_this_server_keeps_what_came(tmp_path: Path) -> None:
    with mxart(tmp_path / "mxart", config(), workers=2) as server:
        async with offered() as source:
            words = command(
                f"{source.url}/app:1",
                f"{server.url}/team/app",
                tmp_path / "state",
                *("--target-user", "admin", "--target-password-file", password(server)),
            )
            process = await trio.lowlevel.open_process(words, env=environment())
            uploads = server.data / "store" / "uploads"
            size = STALLED // 4096 * 4096 - (1 << 18)

            def came() -> bool:
                return any(file.stat().st_size >= size for file in uploads.iterdir())

            await trio.to_thread.run_sync(wait_until, came, "most of what the source gave")
            process.send_signal(signal.SIGKILL)
            await process.wait()
            done = await run(words)
            assert done.returncode == 0, done.stderr
            assert b"sent by an earlier run" in done.stdout
            (start,) = [int(seen.headers["range"][6:-1]) for seen in source.requests if "range" in seen.headers]
            assert start >= size
            assert start % (1 << 20) != 0  # in the middle of a chunk
        for blob in APP.blobs:
            assert get(f"{server.url}/v2/team/app/blobs/{blob.digest}") == blob.data
