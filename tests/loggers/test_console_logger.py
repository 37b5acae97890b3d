"""What a person sees, and a logger of several."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from rltrain.loggers import pace
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
    monkeypatch.setattr(pace.time, "monotonic", clock.monotonic)
    return clock


LEARNS = {"train/gradient_steps": 1.0, "time/steps_per_second": 1.0}
WAITS = {"train/gradient_steps": 0.0, "time/steps_per_second": 1.0}


def test_a_line_every_few_seconds(clock: Clock) -> None:
    out = io.StringIO()
    logger = ConsoleLogger(20_000, start_step=10_000, stream=out)
    for second in range(1, 16):
        clock.now = 100.0 + second
        scalars = {"rollout/episode_return": 21.25, "train/td_loss": 1.0, **LEARNS}
        logger.log(10_000 + 500 * second, scalars | ({"eval/episode_return": 99.0} if second == 7 else {}))
    logger.close(True)
    assert out.getvalue().splitlines() == [
        "step 12,500/20,000  return 21.2  500 steps/s",
        "step 15,000/20,000  return 21.2  eval 99.0  500 steps/s",
        "step 17,500/20,000  return 21.2  eval 99.0  500 steps/s  0:00:05 left",
    ]


def test_no_speed_and_no_return_yet(clock: Clock) -> None:
    out = io.StringIO()
    logger = ConsoleLogger(10, stream=out)
    clock.now += 60
    logger.log(0, {})
    assert out.getvalue() == "step 0/10  0 steps/s\n"


@pytest.mark.parametrize("first", [(1, 5_000, WAITS), (40, 400, LEARNS)], ids=["before learning", "compiling"])
def test_the_time_left_is_told_from_steps_that_learn_and_not_before_there_are_some(
    first: tuple[float, int, dict[str, float]], clock: Clock
) -> None:
    """100 steps a second from when learning began; before it 5,000, or 10 while the update was compiled."""
    out = io.StringIO()
    alone, together = ConsoleLogger(20_000, stream=out), PopulationConsole([20_000], stream=out, may_end_early=True)
    step = 0
    for seconds, steps, scalars in (first, (5, 500, LEARNS), (5, 500, LEARNS), (5, 500, LEARNS), (6, 600, LEARNS)):
        clock.now += seconds
        step += steps
        alone.log(step, scalars)
        together.of_member(0).log(step, scalars)
    lines = out.getvalue().splitlines()
    left = f"0:0{(20_000 - step) // 6000}:{(20_000 - step) // 100 % 60:02d} left"
    assert lines[-2:] == [
        f"step {step:,}/20,000  100 steps/s  {left}",
        f"step {step:,}/20,000  100 steps/s  at most {left}",  # of one that has left its population
    ]
    known = [line for line in lines if "left" in line]
    assert len(known) == (4 if first[1] == 5_000 else 6) and len(lines) - len(known) >= 4
    assert all("0:02" in line or "0:03" in line for line in known)


def test_a_table_learns_from_its_first_step(clock: Clock) -> None:
    out = io.StringIO()
    logger = ConsoleLogger(3_000, stream=out, may_end_early=True)
    for step in (500, 1_000, 1_500):
        clock.now += 5
        logger.log(step, {"time/steps_per_second": 1.0})
    assert out.getvalue().splitlines()[-1] == "step 1,500/3,000  100 steps/s  at most 0:00:15 left"


def test_a_bar_on_a_terminal_only_and_only_for_a_single_run(clock: Clock) -> None:
    terminal, sweep, pipe = Terminal(), Terminal(), io.StringIO()
    for stream, bar in ((terminal, True), (sweep, False), (pipe, True)):
        logger = ConsoleLogger(100, stream=stream, bar=bar)
        assert not stream.getvalue(), "the header comes first"
        clock.now += 6
        logger.log(50, {"rollout/episode_return": 21.0, **LEARNS})
        if stream is terminal:
            clock.now += 10
            logger.log(75, LEARNS)
        logger.log(103, {})  # a vector step may pass the end
        logger.flush()
        logger.close()
        logger.close()
    assert "\r" in terminal.getvalue()
    assert "100/100" in terminal.getvalue()
    assert terminal.getvalue().endswith("100/100, return 21.0  2 steps/s\n") and "?" not in terminal.getvalue()
    assert sweep.getvalue() == pipe.getvalue() == "step 50/100  return 21.0  8 steps/s\n"


def test_a_population_speaks_when_all_of_its_members_have(clock: Clock) -> None:
    """Half way of 400 steps: 3 members, 600 steps in 10 seconds, 600 to go."""
    out = io.StringIO()
    screen = PopulationConsole([400] * 3, stream=out)
    clock.now += 10
    for member, value in enumerate([20.0, 60.0, 40.0]):
        assert out.getvalue() == ""
        screen.of_member(member).log(200, {"rollout/episode_return": value})
    line = "step 200/400 of each  return 40.0 (20.0 to 60.0)  60 steps/s together\n"
    assert out.getvalue() == line
    clock.now += 6
    for member in (1, 2):  # the first has ended, which nobody says
        screen.of_member(member).log(300, {})
    assert out.getvalue() == line
    for member in (1, 2):
        screen.of_member(member).log(400, {})
    assert out.getvalue().splitlines()[1].startswith("step 400/400 of 2 jobs  return 50.0 (40.0 to 60.0)")


def test_a_population_of_which_one_is_left_speaks_of_that_one(clock: Clock) -> None:
    out = io.StringIO()
    screen = PopulationConsole([100, 100, 400], stream=out)
    for member, value in enumerate([20.0, 90.0, 40.0]):
        screen.of_member(member).log(100, {"rollout/episode_return": value})
    clock.now += 10
    for step in (200, 300):
        screen.of_member(2).log(step, {})
    assert out.getvalue() == "step 300/400 of 1 job  return 40.0  50 steps/s\n"


def test_what_a_resumed_population_had_before_is_no_work_of_now(clock: Clock) -> None:
    """20 steps a second together; the second member ended before its last step, and nobody waits for the rest."""
    out = io.StringIO()
    screen = PopulationConsole([1000, 900, 1000], start_steps=[500, 400, 500], stream=out)
    for step in (550, 600, 650, 700):
        clock.now += 5
        for member in (0, 2):
            screen.of_member(member).log(step, LEARNS)
    assert out.getvalue().splitlines()[-1] == "step 700/1,000 of 2 jobs  20 steps/s together  0:00:30 left"


def test_members_with_limits_of_their_own_are_not_said_to_have_one(clock: Clock) -> None:
    out = io.StringIO()
    screen = PopulationConsole([400, 800, 1200], stream=out)
    clock.now += 10
    for member in range(3):
        screen.of_member(member).log(200, {})
    assert out.getvalue().startswith("step 200 of 400 to 1,200 (3 jobs)  ")


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
