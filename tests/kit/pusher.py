"""A process that pushes images into a `Warehouse`, as a worker does: the same few layers over and over.

Arguments: the data folder, a seed, how many. A line on standard output for each: the manifest's digest, once it is
acknowledged, or `refused`; every second one is deleted at once.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import trio

from kit.space import Warehouse
from mxart.store.published import Incomplete, Vanished


async def main(data: str, seed: int, count: int) -> None:
    house = Warehouse(Path(data), slot=2 + seed)
    choice = random.Random(seed)
    for number in range(count):
        try:
            layers = []
            for _ in range(3):
                layer = f"layer {choice.randrange(20)}".encode()
                layers.append(await house.push_blob(layer, at=time.time()))
            digest = await house.push_manifest(f"{seed} {number}".encode(), list(dict.fromkeys(layers)), at=time.time())
            if number % 2:
                await house.publications.withdraw("own", f"app/manifests/{digest}", str(digest))
            else:
                os.write(1, f"{digest}\n".encode())
        except (Incomplete, Vanished):
            os.write(1, b"refused\n")
    house.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
