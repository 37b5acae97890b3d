"""What is shown while an evaluation lasts."""

from __future__ import annotations

import io
import re

import pytest

from rltrain.loggers import evaluation_console as module
from rltrain.loggers.evaluation_console import EvaluationConsole


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_few_seconds(clock: list[float]) -> None:
    stream = io.StringIO()
    console = EvaluationConsole(stream=stream)
    console.begin(100)
    clock[0] += 4.9
    assert not console.due()
    clock[0] += 5.1
    assert console.due()
    console.show(0, 2_000, 14_000, guessed=False)  # 10 s for 2,000 steps
    assert not console.due()
    clock[0] += 10
    assert console.due()
    console.show(40, 4_000, 6_000, guessed=True)
    console.end()
    assert stream.getvalue().splitlines() == [
        "evaluating  0/100 episodes  2,000 steps  at most 0:01:10 left",
        "evaluating  40/100 episodes  4,000 steps  0:00:30 left",
    ]


def test_a_bar_on_a_terminal_once_it_takes_longer(clock: list[float]) -> None:
    stream = Terminal()
    console = EvaluationConsole(stream=stream)
    console.begin(100)
    assert not console.due() and not stream.getvalue()
    clock[0] += 0.5
    assert console.due()
    console.show(40, 4_000, 6_000, guessed=True)
    console.show(50, 5_000, 5_000, guessed=True)
    drawn = [line.strip() for line in stream.getvalue().split("\r") if line.strip()]
    assert [re.sub(r"\|.*\|", "|...|", line) for line in drawn] == [
        "evaluating  40/100 episodes  4,000 steps |...| 0:00:01 left",
        "evaluating  50/100 episodes  5,000 steps |...| 0:00:00 left",
    ]
    console.end()
    assert not EvaluationConsole(stream=stream, bar=False)._draws


def test_nothing_of_what_is_over_at_once(clock: list[float]) -> None:
    stream = Terminal()
    console = EvaluationConsole(stream=stream)
    console.begin(100)
    console.end()
    assert not stream.getvalue()
