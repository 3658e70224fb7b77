"""Cancels a piece of work after its first step, its second, ... until it gets through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` once the tasks below `nursery` have made `steps` steps."""

    def __init__(self, nursery: trio.Nursery, steps: int) -> None:
        self.scope = trio.CancelScope()
        self._nursery = nursery
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        above = task.parent_nursery
        while above is not None and above is not self._nursery:
            above = above.parent_task.parent_nursery
        if above is None:
            return
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


async def cancelled_after_each_step(once: Callable[[int], Awaitable[bool]], limit: int = 2000) -> int:
    """`once(n)` runs the work, cancelled at step n, and says whether it came to its own end."""
    for step in range(1, limit):
        if await once(step):
            return step
    raise AssertionError(f"never came to its end in {limit} steps")
