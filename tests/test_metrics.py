"""Numbers add up over workers, and Prometheus can read them."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from mxart.metrics import BUCKETS, Family, Metrics


def make(workers: int = 2) -> Metrics:
    return Metrics(
        [
            Family("seen", "counter", "Things seen", [("colour", ("red", "blue"))]),
            Family("open", "gauge", "Things open"),
            Family("left", "gauge", "Things left", [("colour", ("red", "blue"))], latest=True),
            Family("took", "histogram", "Time taken", [("colour", ("red", "blue"))]),
        ],
        workers,
    )


def read(metrics: Metrics) -> dict[tuple[str, str], float]:
    text, media_type = metrics.render()
    assert media_type.startswith("text/plain")
    return {
        (sample.name, sample.labels.get("le", sample.labels.get("colour", ""))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_workers_count_for_themselves_and_a_scrape_adds_up() -> None:
    metrics = make()
    for worker in (0, 1):
        metrics.for_worker(worker)
        metrics.add("seen", "red", amount=3)
        metrics.set("open", value=5)
        metrics.set("left", "red", value=1 - worker)
    found = read(metrics)
    assert found["seen_total", "red"] == 6
    assert found["open", ""] == 10
    # What all share is as the last one of them left it, nothing as well, and however long ago.
    assert found["left", "red"] == metrics.latest("left", "red") == 0
    assert ("left", "blue") not in found
    assert metrics.latest("left", "blue") is metrics.latest("left", "a-strangers-idea") is None
    metrics.for_worker(0)
    assert metrics.latest("left", "red") == 0
    assert ("seen_total", "blue") not in found


def test_another_process_is_seen() -> None:
    metrics = make()
    child = os.fork()
    if child == 0:
        metrics.for_worker(1)
        metrics.add("seen", "blue")
        os._exit(0)
    os.waitpid(child, 0)
    assert read(metrics)["seen_total", "blue"] == 1


def test_a_duration_is_in_its_bucket_and_all_above() -> None:
    metrics = make(1)
    for seconds in (0.0, BUCKETS[3], 99.0):
        metrics.observe("took", "red", seconds=seconds)
    found = read(metrics)
    assert found["took_bucket", str(BUCKETS[0])] == 1
    assert found["took_bucket", str(BUCKETS[2])] == 1
    assert found["took_bucket", str(BUCKETS[3])] == 2
    assert found["took_bucket", "+Inf"] == 3
    assert found["took_sum", "red"] == BUCKETS[3] + 99.0


def test_a_label_that_was_not_foreseen_is_dropped() -> None:
    metrics = make(1)
    metrics.add("seen", "a-strangers-idea")
    assert ("seen_total", "a-strangers-idea") not in read(metrics)


def test_what_a_dead_worker_had_open_is_forgotten_and_what_it_counted_is_not() -> None:
    metrics = make()
    metrics.for_worker(1)
    metrics.add("seen", "red")
    metrics.set("open", value=5)
    metrics.observe("took", "red", seconds=1)
    metrics.for_worker(1)
    found = read(metrics)
    assert found["open", ""] == 0
    assert found["seen_total", "red"] == 1
    assert found["took_sum", "red"] == 1
