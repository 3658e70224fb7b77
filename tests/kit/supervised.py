"""A supervisor in a process of its own, over workers that do what a file says, so that its decisions are seen quickly.

Run as a program: the folder with the file `wanted` is its argument.  That file holds words: how many
workers, then what they are ("good"; "dies": before it is ready; "crashes": at once when it is ready;
"wrong": a configuration that is refused; "breaks": a fault while it is prepared; "clings": it drains until
there is a file `free`) and a port's name.  While there is a file `ill`, every worker dies before it is ready.  A
worker writes a line to `lives` when it begins, is ready and ends; its ports are sockets bound once a name.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from mxart.errors import ConfigError
from mxart.supervisor import Prepared, Supervisor


class Told:
    """A configuration as the file told it (supervisor.Prepared)."""

    drain_seconds = 5.0

    def __init__(self, folder: Path, previous: Prepared | None) -> None:
        count, self.manner, name = (folder / "wanted").read_text().split()
        if self.manner == "wrong":
            raise ConfigError("it is wrong")
        if self.manner == "breaks":
            raise ZeroDivisionError
        self._folder = folder
        self.workers = int(count)
        self.name = name
        before = previous.sockets if isinstance(previous, Told) else {}
        self.sockets: dict[str, socket.socket] = {name: before.get(name) or socket.create_server(("127.0.0.1", 0))}
        self.urls = [str(self.sockets[name].getsockname()[1])]
        self._lives = os.open(folder / "lives", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _note(self, what: str) -> None:
        os.write(self._lives, f"{what} {os.getpid()} {self.name} {self.urls[0]}\n".encode())

    def serve(self, index: int, life: int, ready: Callable[[], None]) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self._note("begins")
        if (self.manner == "dies" and index == self.workers - 1) or (self._folder / "ill").exists():
            raise ConfigError("this worker cannot")
        ready()
        self._note("ready")
        if self.manner == "crashes":
            os._exit(3)
        select.select([reading, life], [], [])
        while self.manner == "clings" and not (self._folder / "free").exists():
            select.select([life], [], [], 0.01)
        self._note("ends")

    def release(self, staying: list[Prepared]) -> None:
        kept = [sock for other in staying if isinstance(other, Told) for sock in other.sockets.values()]
        for sock in self.sockets.values():
            if sock not in kept:
                sock.close()


def main(folder: Path) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def announce(prepared: Prepared) -> None:
        sys.stdout.write(f"ready {' '.join(prepared.urls)}\n")
        sys.stdout.flush()

    return Supervisor(lambda previous: Told(folder, previous), announce).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
