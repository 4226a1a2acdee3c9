from pipeline.config import Settings
from pipeline.telemetry import Telemetry
from stockify import health
from stockify.health import Rates


def test_rate_is_the_growth_over_the_window() -> None:
    rates = Rates(window_s=10)
    for second in range(31):
        rates.add({"entries": 2.0 * second}, now_s=float(second))
    assert rates.per_second() == {"entries": 2.0}


def test_rate_forgets_what_is_older_than_the_window() -> None:
    rates = Rates(window_s=10)
    for second in range(31):
        rates.add({"entries": float(min(second, 15))}, now_s=float(second))
    assert rates.per_second() == {"entries": 0.0}


def test_single_sight_gives_no_rate() -> None:
    rates = Rates()
    rates.add({"entries": 5.0}, now_s=1.0)
    assert rates.per_second() == {}


def test_counter_that_fell_begins_anew_and_is_never_negative() -> None:
    rates = Rates()
    rates.add({"entries": 100.0}, now_s=1.0)
    rates.add({"entries": 1.0}, now_s=2.0)
    assert rates.per_second() == {}
    rates.add({"entries": 3.0}, now_s=3.0)
    assert rates.per_second() == {"entries": 2.0}


def test_counter_that_appears_later_counts_from_zero() -> None:
    rates = Rates()
    rates.add({}, now_s=1.0)
    rates.add({"entries": 4.0}, now_s=3.0)
    assert rates.per_second() == {"entries": 2.0}


async def test_probe_reads_what_a_process_says_of_itself() -> None:
    telemetry = Telemetry("unit", Settings())
    try:
        telemetry.counter("entries", "for the probe").add(3)
        telemetry.set_state("degraded", "no feed")
        answer = await health.over_http("127.0.0.1", telemetry.metrics_port)()
    finally:
        telemetry.close()
    assert answer is not None
    assert (answer.state, answer.reason, answer.counters) == ("degraded", "no feed", {"entries": 3})


async def test_probe_of_nobody_gives_none() -> None:
    telemetry = Telemetry("unit", Settings())
    port = telemetry.metrics_port
    telemetry.close()
    assert await health.over_http("127.0.0.1", port)() is None
