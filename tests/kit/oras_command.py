"""One command of oras, run as a program: told what to do as JSON on standard input, it answers on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import oras.client
import oras.oci


def main() -> None:
    asked = json.loads(sys.stdin.read())
    # What was refused it would ask five times more, for two minutes.
    oras.client.OrasClient.do_request = oras.client.OrasClient.do_request.__wrapped__
    client = oras.client.OrasClient(insecure=asked["plain"], tls_verify=asked["trust"], auth_backend=asked["auth"])
    match asked["do"]:
        case "login":
            told = client.login(asked["user"], asked["password"], hostname=asked["registry"])
        case "push":
            config = Path(asked["folder"]) / "config.json"
            config.write_text("{}")
            answer = client.push(
                asked["target"],
                files=asked["files"],
                subject=oras.oci.Subject(**asked["subject"]) if asked["subject"] else None,
                manifest_config=f"{config}:{asked['type']}",
                manifest_annotations=asked["annotations"],
                disable_path_validation=True,
                do_chunked=asked["chunk"] > 0,
                chunk_size=asked["chunk"] or 1 << 24,
                quiet=True,
            )
            told = answer.headers["Docker-Content-Digest"]
        case "pull":
            told = client.pull(asked["reference"], outdir=asked["folder"])
        case "tags":
            container = client.get_container(asked["name"])
            client.auth.load_configs(container)
            told = client.get_tags(container)
        case "delete":
            container = client.get_container(asked["name"])
            client.auth.load_configs(container)
            told = client.delete_tags(container, asked["tag"])
        case unknown:
            raise AssertionError(unknown)
    sys.stdout.write(f"\n{json.dumps(told)}\n")


main()
