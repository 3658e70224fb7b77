"""Requests at a steady pace: `paced_pulls.py URL RATE`, until standard input is closed.

Four kept connections share the pace, each in a thread; a request that is late delays none of the others, and its
lateness counts: a time runs from when the request was due.  Prints JSON: how many, and the median, the 99th
percentile and the worst in seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from urllib.parse import urlsplit

from push_load import Connection

_CONNECTIONS = 4


def main(url: str, rate: float) -> None:
    """All of it."""
    parts = urlsplit(url)
    ended = threading.Event()
    found: list[float] = []
    failed: list[BaseException] = []
    began = time.perf_counter()

    def pull(number: int) -> None:
        try:
            connection = Connection(str(parts.hostname), parts.port or 80, {"Accept": "*/*"})
            due = began + number / rate
            while not ended.is_set():
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.begin("GET", parts.path)
                connection.answer(200)
                found.append(time.perf_counter() - due)
                due += _CONNECTIONS / rate
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            failed.append(error)

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    found.sort()
    told = {
        "count": len(found),
        "median": found[len(found) // 2],
        "p99": found[len(found) * 99 // 100],
        "worst": found[-1],
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
