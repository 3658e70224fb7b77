"""Runs a coroutine and tells when it first has to wait.

Most requests are answered from memory without one wait, and for those nobody needs to look whether
the client is still there.  Starting a task for every request to find out costs more than the
request; so the coroutine is stepped by hand until it first gives way to the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


# Any: what a coroutine exchanges with its loop is the loop's secret, and is passed on untouched.
@coroutine
def noticing(work: Coroutine[Any, Any, _T], on_wait: Callable[[], None]) -> Generator[Any, Any, _T]:
    """As `await work`, but `on_wait()` is called, at most once, just before its first wait.

    `on_wait` must not wait; it may start tasks.  Exceptions and cancellation pass both ways as in a
    plain await (PEP 380 spells out the delegation that is written by hand here).
    """
    try:
        trap = work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    try:
        on_wait()
    except BaseException:
        work.close()
        raise
    step: Callable[[Any], Any]
    while True:
        try:
            answer = yield trap
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - thrown in by the loop, meant for the work
            step, value = work.throw, error
        else:
            step, value = work.send, answer
        try:
            trap = step(value)
        except StopIteration as done:
            result = done.value
            return result
