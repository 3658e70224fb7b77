"""The JDK's own HTTP client, which Maven 4 speaks by: it offers an upgrade to h2c, and waits with a body for good."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest

from kit.maven_command import java_environment
from kit.maven_tree import Artifact
from kit.people import add_user
from kit.servers import Mxart, mxart, program

CONFIG = """
[repository.own]
format = "maven"
kind = "local"
path = "/maven"
"""
# Each line of its standard input is a request: "GET path", or "PUT path file", or "WAIT path file", which is a PUT with
# Expect.  For each it prints the status, the protocol and the digest of what came.  Its arguments are a URL and a login
# in base64, or "".
SOURCE = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.*;
import java.nio.file.*;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
        List<CompletableFuture<String>> answers = new ArrayList<>();
        for (String line : new String(System.in.readAllBytes()).split("\\n")) {
            String[] words = line.split(" ");
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0] + words[1]));
            request.timeout(Duration.ofSeconds(20));
            if (!arguments[1].isEmpty()) request.header("Authorization", "Basic " + arguments[1]);
            if (!words[0].equals("GET")) request.PUT(BodyPublishers.ofFile(Path.of(words[2])));
            request.expectContinue(words[0].equals("WAIT"));
            CompletableFuture<String> answer = client
                .sendAsync(request.build(), HttpResponse.BodyHandlers.ofByteArray())
                .thenApply(got -> got.statusCode() + " " + got.version() + " " + sha1(got.body()))
                .exceptionally(fault -> "failed: " + fault);
            answers.add(answer);
            if (!words[0].equals("GET")) answer.get();
        }
        for (CompletableFuture<String> answer : answers) System.out.println(answer.get());
    }

    static String sha1(byte[] data) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-1").digest(data));
        } catch (Exception fault) {
            throw new RuntimeException(fault);
        }
    }
}
"""


def ask(server: Mxart, room: Path, login: tuple[str, str] | None, *lines: str) -> list[list[str]]:
    """Status, protocol and digest of each answer: one client, GETs at the same time."""
    source = room / "Client.java"
    source.write_text(SOURCE)
    ca = server.ca if server.url.startswith("https") else None
    env = java_environment(room / "home", ca)
    shown = base64.b64encode(":".join(login).encode()).decode() if login else ""
    command = [program("java"), *env["MAVEN_OPTS"].split(), source, server.url + "/maven/", shown]
    done = subprocess.run(
        command, env=env, input="\n".join(lines), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("tls", "spoken"), [(False, "HTTP_1_1"), (True, "HTTP_2")], ids=["plain", "tls"])
def test_the_jdk_client_puts_with_expect_and_without_and_gets_many_at_once(tls: bool, spoken: str, room: Path) -> None:
    """In plain text it offers h2c with every request, and goes on with HTTP/1.1 when nobody takes that up."""
    artifacts = [Artifact("com.example", f"a{n}", "1.0", extra={"big": bytes(range(256)) * 4096}) for n in range(8)]
    with mxart(room / "mxart", CONFIG, tls=tls, workers=2) as server:
        login = add_user(server, "ann", "ann-and-her-password")
        puts = []
        for artifact in artifacts:
            for path, data in artifact.files.items():
                file = room / Path(path).name
                file.write_bytes(data)
                puts.append(f"{'WAIT' if len(puts) % 2 else 'PUT'} {path} {file}")
        told = ask(server, room, login, *puts)
        assert {(one[0], one[1]) for one in told} == {("201", spoken)}, told
        gets = [path for artifact in artifacts for path in artifact.files] * 3
        files = {path: data for artifact in artifacts for path, data in artifact.files.items()}
        told = ask(server, room, None, *[f"GET {path}" for path in gets])
        assert told == [["200", spoken, hashlib.sha1(files[path]).hexdigest()] for path in gets]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_jdk_client_hears_why_it_is_refused_though_it_sends_the_body_at_once(tls: bool, room: Path) -> None:
    """As Maven 4 puts the first file of a deploy: without a login, which it shows when it is asked to.

    With Expect it is refused as well (test_maven_recorded.py), but JDK 17's client reads the body of such a refusal
    twice, and hangs by itself.
    """
    artifact = Artifact("com.example", "a", "1.0", extra={"big": bytes(range(256)) * 8192})
    file = room / "a.jar"
    file.write_bytes(artifact.jar)
    put = f"PUT {artifact.base}.jar {file}"
    with mxart(room / "mxart", CONFIG, tls=tls) as server:
        login = add_user(server, "ann", "ann-and-her-password")
        for shown in (None, ("ann", "wrong")):
            told = ask(server, room, shown, put, put, put)
            assert [one[0] for one in told] == ["401", "401", "401"], told
        told = ask(server, room, login, put, f"GET {artifact.base}.jar")
        assert [one[0] for one in told] == ["201", "200"], told
