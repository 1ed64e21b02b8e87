"""Figures of a run: pure arithmetic, and a generator that fails."""

import os
import sys
from typing import Any

import pytest

from magnetar.bench.load import Load, RunError, Where
from magnetar.bench.running import (
    Counters,
    Server,
    conditions,
    figures,
    rest,
    run,
    server_at,
    server_figures,
)

LOAD = Load(
    mode="publish",
    where=Where(url="pulsar://127.0.0.1:1", token="secret"),
    prefix="persistent://public/default/b",
    size_bytes=1_024,
)
RESULT: dict[str, Any] = {
    "messages": 1_000,
    "seconds": 2.0,
    "generator_cpu_s": 0.001,
    "times": {"100": 990, "200": 10},
}


def test_rates_and_costs_are_per_message() -> None:
    told = figures(LOAD, RESULT)
    assert told["messages_per_s"] == 500
    assert told["generator_cpu_us"] == pytest.approx(1.0)
    assert told["p50_ms"] == pytest.approx(0.1)
    cost = server_figures(LOAD, RESULT, Counters(1.0, 0), Counters(1.01, 2_048_000), 1)
    assert cost["server_cpu_us"] == pytest.approx(10.0)
    assert cost["written_per_byte"] == pytest.approx(2.0)
    assert not cost["client_bound"]


def test_a_generator_that_needs_more_than_half_of_the_servers_time_is_named() -> None:
    cost = server_figures(LOAD, RESULT, Counters(1.0, None), Counters(1.0019, None), 1)
    assert cost["client_bound"]
    assert "written_per_byte" not in cost


def test_the_conditions_say_everything_but_who_asked() -> None:
    told = conditions(LOAD)
    assert told["size_bytes"] == 1_024
    assert told["entries_in_flight_per_connection"] == 4_000
    assert "secret" not in str(told)


def test_where_nobody_answers_the_run_says_so() -> None:
    with pytest.raises(RunError, match="no broker answers") as caught:
        run(LOAD)
    assert caught.value.nobody_answers


def test_a_generator_that_breaks_is_no_result() -> None:
    with pytest.raises(RunError, match="ended with code 3"):
        run(LOAD, generator=["-c", "import sys; sys.stdin.read(); sys.exit(3)"])


def test_a_server_on_another_machine_is_not_looked_for() -> None:
    assert server_at("pulsar://192.0.2.1:6650") is None


def test_a_process_that_waits_rests_and_one_that_works_does_not() -> None:
    import subprocess

    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert not rest(Server(busy.pid, None), limit_s=0.6)
    finally:
        busy.kill()
        busy.wait()
    assert rest(Server(os.getpid(), None))
