"""What a person sees, and a logger of several."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from rltrain.loggers import console
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.jsonl import JsonlLogger, read_rows
from rltrain.loggers.logger import MultiLogger, NullLogger
from rltrain.loggers.population_console import PopulationConsole


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock.monotonic)
    return clock


def test_a_line_every_few_seconds(clock: Clock) -> None:
    out = io.StringIO()
    logger = ConsoleLogger(20_000, start_step=10_000, stream=out)
    for second in range(1, 11):
        clock.now = 100.0 + second
        scalars = {"rollout/episode_return": 21.25, "train/td_loss": 1.0}
        logger.log(10_000 + 500 * second, scalars | ({"eval/episode_return": 99.0} if second == 7 else {}))
    logger.close(True)
    assert out.getvalue().splitlines() == [
        "step 12,500/20,000  return 21.2  500 steps/s  0:00:15 left",
        "step 15,000/20,000  return 21.2  eval 99.0  500 steps/s  0:00:10 left",
    ]


def test_no_speed_and_no_return_yet(clock: Clock) -> None:
    out = io.StringIO()
    logger = ConsoleLogger(10, stream=out)
    clock.now += 60
    logger.log(0, {})
    assert out.getvalue() == "step 0/10  0 steps/s\n"


def test_what_compiling_took_says_nothing_about_the_time_left(clock: Clock) -> None:
    out = io.StringIO()
    alone, together = ConsoleLogger(10_000, stream=out), PopulationConsole([10_000], stream=out)
    for seconds, step in ((40, 400), (8, 2_000)):
        clock.now += seconds
        alone.log(step, {})
        together.of_member(0).log(step, {})
    assert out.getvalue().splitlines()[2:] == [
        "step 2,000/10,000  200 steps/s  0:00:40 left",
        "step 2,000/10,000 of each  200 steps/s together  0:00:40 left",
    ]


def test_a_bar_on_a_terminal_only_and_only_for_a_single_run(clock: Clock) -> None:
    terminal, sweep, pipe = Terminal(), Terminal(), io.StringIO()
    for stream, bar in ((terminal, True), (sweep, False), (pipe, True)):
        logger = ConsoleLogger(100, stream=stream, bar=bar)
        assert not stream.getvalue(), "the header comes first"
        clock.now += 6
        logger.log(50, {"rollout/episode_return": 21.0})
        logger.log(103, {})  # a vector step may pass the end
        logger.flush()
        logger.close()
        logger.close()
    assert "\r" in terminal.getvalue()
    assert "100/100" in terminal.getvalue()
    assert "return 21.0" in terminal.getvalue()
    assert sweep.getvalue() == pipe.getvalue() == "step 50/100  return 21.0  8 steps/s  0:00:06 left\n"


def test_a_population_speaks_when_all_of_its_members_have(clock: Clock) -> None:
    """Half way of 400 steps: 3 members, 600 steps in 10 seconds, 600 to go."""
    out = io.StringIO()
    screen = PopulationConsole([400] * 3, stream=out)
    clock.now += 10
    for member, value in enumerate([20.0, 60.0, 40.0]):
        assert out.getvalue() == ""
        screen.of_member(member).log(200, {"rollout/episode_return": value})
    line = "step 200/400 of each  return 40.0 (20.0 to 60.0)  60 steps/s together  0:00:10 left\n"
    assert out.getvalue() == line
    clock.now += 6
    for member in (1, 2):  # the first has ended, which nobody says
        screen.of_member(member).log(300, {})
    assert out.getvalue() == line
    for member in (1, 2):
        screen.of_member(member).log(400, {})
    assert out.getvalue().splitlines()[1].startswith("step 333/400 of each")


def test_what_a_resumed_population_had_before_is_no_work_of_now(clock: Clock) -> None:
    """300 new steps in 10 seconds; the second member had ended."""
    out = io.StringIO()
    screen = PopulationConsole([1000, 400, 1000], start_steps=[500, 400, 500], stream=out)
    clock.now += 10
    for step in (550, 650):
        for member in (0, 2):
            screen.of_member(member).log(step, {})
    assert out.getvalue() == "step 566/1,000 of each  30 steps/s together  0:00:23 left\n"


def test_several_loggers_are_all_closed_although_one_fails(tmp_path: Path) -> None:
    class Failing(NullLogger):
        def close(self, completed: bool | None = None) -> None:
            raise OSError("full")

    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    files = [JsonlLogger(path) for path in paths]
    several = MultiLogger([files[0], Failing(), files[1]])
    several.log(1, {"a": 2.0})
    several.flush()
    with pytest.raises(OSError, match="full"):
        several.close()
    assert [list(read_rows(path)) for path in paths] == [[{"step": 1, "a": 2.0}]] * 2
    with pytest.raises(ValueError, match="after close"):
        files[1].log(2, {})
