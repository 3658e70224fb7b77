"""Numbers for Prometheus, the same from whichever worker answers.

Every series is known when the workers are forked (it follows from the configuration), so each has
a slot in an array of doubles in shared memory, one array a worker: counting is one addition, and a
scrape adds the arrays up.  Only a worker writes to its own array.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Kind = Literal["counter", "gauge", "histogram"]
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_WIDTH = len(BUCKETS) + 2  # a histogram: its buckets, +Inf, and the sum


class Family:
    """A metric and the closed set of its label values."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        help_text: str,
        labels: Sequence[tuple[str, Sequence[str]]] = (),
        *,
        latest: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.help_text = help_text
        self.labels = tuple(label for label, _ in labels)
        self.series = {values: index for index, values in enumerate(product(*(values for _, values in labels)))}
        self.width = _WIDTH if kind == "histogram" else 1
        self.latest = latest  # a gauge that all workers share: what any of them set last, nothing before that
        self.start = 0


class Metrics:
    """The arrays of all workers. Made before the fork; `for_worker` is called after it."""

    def __init__(self, families: Iterable[Family], workers: int) -> None:
        self.families = {family.name: family for family in families}
        size = 0
        for family in self.families.values():
            family.start = size
            size += len(family.series) * family.width
        self._size = size
        self._arrays = [memoryview(mmap.mmap(-1, max(size, 1) * 8)).cast("d") for _ in range(workers)]
        self._own = self._arrays[0]

    def for_worker(self, index: int) -> None:
        """Count in this worker's array from now on: on from where one before it stopped, but nothing of it is open."""
        self._own = self._arrays[index]
        for family in self.families.values():
            if family.kind == "gauge" and not family.latest:
                self._own[family.start : family.start + len(family.series)] = memoryview(
                    bytes(8 * len(family.series))
                ).cast("d")

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Count. Label values that are not of the closed set are dropped."""
        family = self.families[name]
        series = family.series.get(labels)
        if series is not None:
            self._own[family.start + series * family.width] += amount

    def set(self, name: str, *labels: str, value: float) -> None:
        """Set this worker's part of a gauge, or, of one that is `latest`, the whole."""
        family = self.families[name]
        series = family.series.get(labels)
        if series is None:
            return
        if family.latest:
            self._arrays[0][family.start + series] = value + 1.0  # 0 is: nobody has set it
        else:
            self._own[family.start + series] = value

    def latest(self, name: str, *labels: str) -> float | None:
        """What a gauge that is `latest` was set to; None: it was not."""
        family = self.families[name]
        series = family.series.get(labels)
        value = 0.0 if series is None else self._arrays[0][family.start + series]
        return value - 1.0 if value else None

    def observe(self, name: str, *labels: str, seconds: float) -> None:
        """Put a duration into its bucket."""
        family = self.families[name]
        series = family.series.get(labels)
        if series is not None:
            base = family.start + series * family.width
            self._own[base + bisect_left(BUCKETS, seconds)] += 1
            self._own[base + _WIDTH - 1] += seconds

    def values(self, family: Family) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        """Label values and the numbers of each series, over all workers; series that never counted are left out."""
        for labels, series in family.series.items():
            if family.latest:
                if (value := self.latest(family.name, *labels)) is not None:
                    yield labels, [value]
                continue
            base = family.start + series * family.width
            numbers = [sum(array[base + n] for array in self._arrays) for n in range(family.width)]
            if any(numbers) or not family.labels:
                yield labels, numbers

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        # Imported here: only a scrape needs it, and an idle worker stays small.
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415  # see above
        from prometheus_client.exposition import CONTENT_TYPE_LATEST  # noqa: PLC0415  # see above

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self))
        return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415  # as in render
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for family in self._metrics.families.values():
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(family.name, family.help_text, labels=family.labels)
                for labels, numbers in self._metrics.values(family):
                    seen = 0.0
                    buckets: list[tuple[str, float]] = []
                    for bound, count in zip((*map(str, BUCKETS), "+Inf"), numbers, strict=False):
                        seen += count
                        buckets.append((bound, seen))
                    histogram.add_metric(labels, buckets, sum_value=numbers[-1])
                yield histogram
            else:
                make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                plain = make(family.name, family.help_text, labels=family.labels)
                for labels, numbers in self._metrics.values(family):
                    plain.add_metric(labels, numbers[0])
                yield plain
