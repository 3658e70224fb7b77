"""The allowances of a connection."""

from mxart.proto.http2_flood import ALLOWANCES, Cost, FloodMeter


def burst(meter: FloodMeter, cost: Cost, now: float) -> int:
    count = 0
    while meter.spend(cost, now):
        count += 1
    return count


def test_a_burst_is_allowed_once_and_refills_with_time() -> None:
    for cost in Cost:
        meter = FloodMeter(100.0)
        assert burst(meter, cost, 100.0) == ALLOWANCES[cost].burst
        assert not meter.spend(cost, 100.0)
        assert burst(meter, cost, 101.0) == ALLOWANCES[cost].per_second
        assert burst(meter, cost, 100_000.0) == ALLOWANCES[cost].burst


def test_each_kind_has_its_own() -> None:
    meter = FloodMeter(0.0)
    burst(meter, Cost.PING, 0.0)
    assert meter.spend(Cost.SETTINGS, 0.0)


def test_answers_pay_for_cancelled_streams_up_to_the_burst() -> None:
    meter = FloodMeter(0.0)
    burst(meter, Cost.CANCELLED, 0.0)
    for _ in range(5):
        meter.answered()
    assert burst(meter, Cost.CANCELLED, 0.0) == 5
    for _ in range(10_000):
        meter.answered()
    assert burst(meter, Cost.CANCELLED, 0.0) == ALLOWANCES[Cost.CANCELLED].burst


def test_bodies_pay_for_their_credits_by_the_byte() -> None:
    meter = FloodMeter(0.0)
    burst(meter, Cost.WINDOW, 0.0)
    for _ in range(1000):
        meter.sent(1)
    assert burst(meter, Cost.WINDOW, 0.0) == 0
    meter.sent(16384)
    assert burst(meter, Cost.WINDOW, 0.0) == 4
