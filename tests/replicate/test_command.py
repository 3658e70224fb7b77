"""`mxart replicate` as its user meets it: what it says, its exit codes; killed, interrupted, and run again."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from kit.registry import Asked, Registry, running
from kit.replicate_command import APP, LAYER, command, environment, offered, run
from kit.servers import wait_until
from kit.target import FakeTarget, fake_target
from kit.upstream import say
from mxart.cli import main


def arrived(target: FakeTarget) -> bool:
    blobs = all(target.blobs.get(f"team/app@{blob.digest}") == blob.data for blob in APP.blobs)
    return blobs and target.manifests["team/app:1"][1] == APP.manifest.data


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_killed_in_the_middle_it_goes_on_and_sends_only_the_rest(tmp_path: Path) -> None:
    async with offered() as source, fake_target() as target:
        words = command(f"{source.url}/app:1", f"{target.url}/team/app", tmp_path)
        process = await trio.lowlevel.open_process(words, env=environment())
        with trio.fail_after(60):
            # To the last byte that the source gave.
            await target.until(lambda: sum(len(item.data) for item in target.uploads.values()) >= 3 << 20)
            await target.until(lambda: len(target.blobs) == 1 and len(target.asked("PATCH")) == 4)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await target.until(lambda: target.open_connections == 0)
        before = target.received
        assert before >= 3 << 20
        (kept,) = files(tmp_path)
        assert kept.stat().st_mode & 0o777 == 0o600
        done = await run(words)
        assert done.returncode == 0, done.stderr
        assert arrived(target)
        assert target.received == sum(len(blob.data) for blob in APP.blobs)  # not a byte came twice
        assert b"sent by an earlier run" in done.stdout
        assert [seen.headers["range"] for seen in source.requests if "range" in seen.headers]
        assert files(tmp_path) == []


async def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    async with offered() as source, fake_target() as target:
        words = command(f"{source.url}/app:1", f"{target.url}/team/app", tmp_path)
        process = await trio.lowlevel.open_process(words, env=environment(), stderr=subprocess.PIPE)
        with trio.fail_after(60):
            await target.until(lambda: len(target.blobs) == 1 and len(target.asked("PATCH")) == 4)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert process.stderr is not None
            said = b"".join([piece async for piece in process.stderr])
        assert said == b"interrupted; the same command goes on where it stopped\n"
        assert (await run(words)).returncode == 0
        assert arrived(target)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "to", tmp_path / "to-run")
    with running(registry):
        yield registry


async def test_killed_against_a_real_registry_what_was_complete_is_not_sent_again(
    registry: Registry, tmp_path: Path
) -> None:
    # Debian's docker-registry (2.8) drops an upload whose chunk broke off; so that blob begins anew, and no other.
    async with offered() as source:
        words = command(f"{source.url}/app:1", f"{registry.url}/team/app", tmp_path / "state")
        process = await trio.lowlevel.open_process(words, env=environment())

        def begun() -> bool:
            asked = registry.asked()
            return sum(item.method == "PATCH" for item in asked) == 3 and any(item.status == 201 for item in asked)

        await trio.to_thread.run_sync(lambda: wait_until(begun, "three chunks and a blob"))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        before = await trio.to_thread.run_sync(registry.asked)
        done = await run(words)
        assert done.returncode == 0, done.stderr
        after = (await trio.to_thread.run_sync(registry.asked))[len(before) :]
        assert [item.path for item in after if item.method == "PUT" and APP.config.digest[7:] in item.path] == []
        # Killed between two chunks it broke none off: then it goes on.
        assert _chunks(after) in (7, 7 - _chunks(before))
        data = tmp_path / "to/docker/registry/v2/blobs/sha256" / LAYER.digest[7:9] / LAYER.digest[7:] / "data"
        assert data.read_bytes() == LAYER.data  # a file of the test's own


def _chunks(asked: Sequence[Asked]) -> int:
    return sum((item.method, item.status) == ("PATCH", 202) for item in asked)


async def test_on_a_terminal_it_shows_how_far_it_is(tmp_path: Path) -> None:
    async with offered() as source, fake_target() as target:
        source.on(f"/v2/app/blobs/{LAYER.digest}", say(LAYER.data))
        ours, theirs = pty.openpty()
        try:
            process = await trio.lowlevel.open_process(
                command(f"{source.url}/app:1", f"{target.url}/team/app", tmp_path), env=environment(), stderr=theirs
            )
            assert await process.wait() == 0
            shown = os.read(ours, 65536)
        finally:
            os.close(ours)
            os.close(theirs)
        assert b"blob sha256:" in shown
        assert b"%" in shown


async def test_a_failure_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with offered() as source, fake_target() as target:
        target.on("POST", *[say(b'{"errors":[{"code":"DENIED","message":"no"}]}', status=403)] * 9)
        done = await run(command(f"{source.url}/app:1", f"{target.url}/team/app", tmp_path))
        assert done.returncode == 1
        assert done.stdout == b""
        assert done.stderr.decode() == (
            f"Error: {target.url}/team/app answers 403 to POST blobs/uploads/: DENIED: no\n"
        )


async def test_secrets_come_from_files_the_environment_and_standard_input(tmp_path: Path) -> None:
    async with fake_target() as target:
        seen = [say(b"{}", status=401, headers={"www-authenticate": 'Basic realm="x"'})] * 99
        async with offered() as source:
            source.on(f"/v2/app/blobs/{LAYER.digest}", say(LAYER.data))
            target.on("HEAD", seen[0])
            secret = tmp_path / "secret"
            secret.write_text("s3cret\n")  # a file of the test's own
            words = command(f"{source.url}/app:1", f"{target.url}/team/app", tmp_path / "state", "--target-user", "me")
            assert (await run([*words, "--target-password-file", str(secret)])).returncode == 0
            basic = "Basic bWU6czNjcmV0"
            assert all(item.headers["authorization"] == basic for item in target.requests[1:])
            target.requests.clear()
            target.on("HEAD", seen[0])
            assert (await run(words, MXART_TARGET_PASSWORD="s3cret")).returncode == 0
            assert target.requests[-1].headers["authorization"] == basic


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["replicate", *words], prog_name="mxart", env={"MXART_TARGET_PASSWORD": None})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["alpine:3", "r.example/a"], "write docker.io/library/alpine:3.20"),
        (["r.example/a:1", "s.example/b@sha256:" + "a" * 64], "a target has a tag or none"),
        (["r.example/a:1", "s.example/b", "--all-tags"], "name no tag"),
        (["r.example/a:1", "s.example/b", "--target-user", "me"], "me needs a password"),
        (["r.example/a:1", "s.example/b", "--target-password-file", "/nowhere"], "/nowhere cannot be read"),
        (["r.example/a:1", "s.example/b", "--target-ca", "/nowhere"], "/nowhere"),
        (["r.example/a:1", "s.example/b", "--tag", "a b"], "is not a tag"),
        (
            ["r.example/a:1", "s.example/b", "--target-password-file", "-", "--source-password-file", "-"],
            "one secret only",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], why: str, tmp_path: Path) -> None:
    done = invoke(*words, "--state", str(tmp_path))
    assert done.exit_code == 2
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_registry_that_is_not_there_is_a_failure_that_names_it(tmp_path: Path) -> None:
    done = invoke("http://127.0.0.1:9/a:1", "http://127.0.0.1:9/b", "--state", str(tmp_path))
    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.stderr


async def test_it_dials_as_the_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "mxart.toml"
    file.write_text('[upstreams]\nresolve = { "from.test" = "127.0.0.1", "to.test" = "127.0.0.1" }\n')
    async with offered() as source, fake_target() as target:
        source.on(f"/v2/app/blobs/{LAYER.digest}", say(LAYER.data))
        here = source.url.replace("127.0.0.1", "from.test")
        there = target.url.replace("127.0.0.1", "to.test")
        words = command(f"{here}/app:1", f"{there}/team/app", tmp_path / "state")
        words[3:3] = ["--config", str(file)]
        done = await run(words)
        assert done.returncode == 0, done.stderr
        assert arrived(target)
        assert target.requests[0].headers["host"].startswith("to.test:")
