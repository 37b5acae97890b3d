"""A member of the training loop: its evaluations, rows of metrics and films when they are due, its end, its state."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import Agent, StateDict
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RunFailed
from rltrain.loggers.logger import Logger
from rltrain.terminal.output import warn
from rltrain.training.evaluator import CONFIRM_KEY_OFFSET, REPORT_EPISODES, EpisodeStatistics
from rltrain.training.limits import Limit, reached_limit
from rltrain.training.progress import Progress
from rltrain.training.pruning import SeedPruning
from rltrain.training.recorder import Recorder
from rltrain.training.saving import Checkpointer
from rltrain.training.shared_evaluation import SharedEvaluation
from rltrain.training.value_check import beyond_bounds

_log = logging.getLogger(__name__)
Number = TypeVar("Number", int, float)


class Output(NamedTuple):
    """One member's logger and checkpointer, and the pruning that may end its trial."""

    logger: Logger
    checkpointer: Checkpointer
    pruning: SeedPruning | None = None


class Member:
    """A run's duties at the steps that it has reached, its limits and its checkpoints.

    Everything it counts is in environment steps. What is due at a step is done in a fixed order (evaluate, log, film,
    and the loop saves), so that a run which is stopped and continued does the same things at the same steps.

    Attributes:
        solve_step: of the first evaluation at the environment's threshold.
        best_return: of all evaluations during training.
        metrics: the newest value of each tag of its rows.
    """

    def __init__(
        self,
        index: int,
        config: RunConfig,
        output: Output,
        agent: Agent,
        envs: VectorEnv,
        evaluation: SharedEvaluation,
        progress: Progress,
        recorder: Recorder,
        stop_requested: Callable[[], bool],
    ) -> None:
        """stop_requested: asked during an evaluation, which it may end. Members share all but config and output."""
        self._index, self._config = index, config
        # The agent of a single run need not know of members.
        self._which = () if len(progress.steps) == 1 else (index,)
        self._own_envs = slice(index * config.num_envs, (index + 1) * config.num_envs)
        self._agent, self._envs, self._evaluation = agent, envs, evaluation
        self._logger, self._checkpointer, self._pruning = output
        self._progress, self._recorder, self._stop_requested = progress, recorder, stop_requested
        periods = (config.log_period, config.eval.period, config.video.period)
        self._periods = [period for period in periods if period is not None]
        self.solve_step: int | None = None
        self.best_return: float | None = None
        self.metrics: dict[str, float] = {}
        self._confirmed_return: float | None = None  # of this network, on which the run stops
        self._row_step, self._row_seconds = 0, 0.0  # where the last row of metrics was written
        self._saved: tuple[int, bool] | None = None  # of which state the newest checkpoint is
        self._plan()

    @property
    def step(self) -> int:
        """Environment steps made."""
        return int(self._progress.steps[self._index])

    @property
    def steps_left(self) -> int:
        """Environment steps to `total_steps`, before which another limit may end the run."""
        return max(0, self._config.total_steps - self.step)

    @property
    def episodes(self) -> int:
        """Episodes that ended."""
        return int(self._progress.episodes[self._index])

    @property
    def train_seconds(self) -> float:
        """Seconds of training, without evaluating and saving."""
        return float(self._progress.seconds[self._index])

    @property
    def done(self) -> bool:
        """Whether a limit is reached, or the run given up, and everything that was due then is done."""
        return (self._limit_reached or self.pruned) and not self._due

    @property
    def pruned(self) -> bool:
        """Whether the trial that the run belongs to was given up."""
        return self._pruning is not None and self._pruning.pruned

    @property
    def saved(self) -> bool:
        """Whether the newest checkpoint is of the present state."""
        return self._saved == self._progress.moment(self._index)

    @property
    def evaluates(self) -> bool:
        """Whether an evaluation is due."""
        return self._crossed(self._config.eval.period)

    @property
    def _due(self) -> bool:
        return bool(self._progress.due[self._index])

    @property
    def limit(self) -> Limit | None:
        """The limit that lets it train no more, if one is reached."""
        return reached_limit(self._config, self.step, self.episodes, self._confirmed_return)

    @property
    def _limit_reached(self) -> bool:
        return self.limit is not None

    def _crossed(self, period: int | None) -> bool:
        return period is not None and self.step // period > self._progress.before[self._index] // period

    def _plan(self) -> None:
        """Sets the first environment step at which something will be due, if no limit of episodes is reached before."""
        ends = ((self.step // period + 1) * period for period in self._periods)
        self._progress.next_duty[self._index] = min(self._config.total_steps, *ends)

    def do_duties(self) -> None:
        """Evaluates, logs and films what is due. An evaluation that is interrupted leaves all of it for the resume.

        Raises:
            RunFailed: an environment failed, or a number is not finite.
        """
        config = self._config
        self._plan()
        evaluation = None
        if self.evaluates:
            evaluation = self._evaluate(config.eval.episodes, self.step)
            if evaluation is None or not self._judge(evaluation):
                return
        row: dict[str, float] = {}
        if self._crossed(config.log_period) or self._limit_reached:
            row |= self._log_row()
        if evaluation is not None:
            row |= {"eval/episode_return": evaluation.mean, "eval/episode_return_std": evaluation.std}
            row |= evaluation.diagnostics
            if beyond := beyond_bounds(config, evaluation.diagnostics):
                warn(_log, beyond)
        if row:
            self._logger.log(self.step, row)
            self.metrics |= row
        if self._crossed(config.video.period):
            self._checkpointer.film(self.step, self._checked_state())
        self._progress.due[self._index] = False
        if self._pruning is not None:
            self._tell_pruning(self._pruning, evaluation)

    def _evaluate(self, episodes: int, key: int) -> EpisodeStatistics | None:
        return self._evaluation.evaluate(self._index, episodes, key, self._stop_requested)

    def _tell_pruning(self, pruning: SeedPruning, evaluation: EpisodeStatistics | None) -> None:
        period = self._config.eval.period
        if evaluation is not None and period is not None:
            pruning.report(self.step // period, evaluation.mean)
        if self._limit_reached:
            pruning.end()

    def _log_row(self) -> dict[str, float]:
        seconds = self.train_seconds - self._row_seconds
        speed = (self.step - self._row_step) / seconds if seconds > 0 else 0.0
        self._row_step, self._row_seconds = self.step, self.train_seconds
        means = self._recorder.flush(self._index, self.step)
        return {**means, **self._agent.scalars(*self._which), "time/steps_per_second": speed}

    def _judge(self, evaluation: EpisodeStatistics) -> bool:
        """Keeps the best network and decides whether to stop early; False if that was interrupted."""
        config = self._config
        self._confirmed_return = None  # of another network
        if config.stop_at_return is not None and evaluation.mean >= config.stop_at_return:
            key = CONFIRM_KEY_OFFSET + self.step
            confirmation = self._evaluate(REPORT_EPISODES, key)
            if confirmation is None:
                return False
            self._confirmed_return = confirmation.mean
        threshold = self._envs.reward_threshold
        if self.solve_step is None and threshold is not None and evaluation.mean >= threshold:
            self.solve_step = self.step
        if self.best_return is None or evaluation.mean > self.best_return:
            self.best_return = evaluation.mean
            self._checkpointer.save_best(self.step, self._checked_state())
        return True

    def save(self) -> None:
        """Writes a checkpoint of the present state.

        Raises:
            RunFailed: a number is not finite, or the disk refuses.
        """
        self._logger.flush()  # a run that is killed goes on from here: what was logged by now must be in the files
        self._checkpointer.save(self.step, self._checked_state())
        self._saved = self._progress.moment(self._index)

    def _checked_state(self) -> StateDict:
        """The state, once it is known to be finite: a broken network never replaces a good checkpoint."""
        self._recorder.check(self._index, self.step)
        state = self.state_dict()
        for name, tensor in state["network"].items():
            if not torch.isfinite(tensor).all():
                raise RunFailed(f"the weights of {name} are not finite at environment step {self.step}")
        return state

    def agent_state(self) -> StateDict:
        """Its part of the agent's state."""
        return self._agent.state_dict(*self._which)

    def state_dict(self) -> StateDict:
        """All that a continued run needs: the agent's sections, and `state` with the run's own counters."""
        agent = self.agent_state()
        state = {
            "agent": agent["state"],
            "envs": self._envs.state_dict(self._own_envs),
            "recorder": self._recorder.state_dict(self._index),
            "step": self.step,
            "episodes": self.episodes,
            "solve_step": self.solve_step,
            "best_return": self.best_return,
            "confirmed_return": self._confirmed_return,
            "metrics": {tag: value for tag, value in self.metrics.items() if math.isfinite(value)},
            "duties_from": int(self._progress.before[self._index]) if self._due else None,
            "train_seconds": self.train_seconds,
            "row_step": self._row_step,
            "row_seconds": self._row_seconds,
        }
        return {**agent, "state": state}

    def load_state_dict(self, sections: Mapping[str, Mapping[str, Any]], running: np.ndarray) -> bool:
        """Continues from `sections`; False if running episodes could not be continued and begin anew.

        Args:
            running: [N], the numbers of the episodes that ran then; the environments have loaded theirs.
        """
        state = sections["state"]
        self._agent.load_state_dict({**sections, "state": state["agent"]}, *self._which)
        abandoned = np.zeros(self._envs.num_envs, np.bool_)
        abandoned[self._own_envs] = self._envs.state_dict(self._own_envs)["episode"] != running
        if abandoned.any():
            self._agent.abandon_episodes(abandoned)
        self._recorder.load_state_dict(state["recorder"], self._index)
        step, episodes, self._row_step = (int(state[key]) for key in ("step", "episodes", "row_step"))
        self.solve_step, duties_from = (_if_any(int, state[key]) for key in ("solve_step", "duties_from"))
        self.best_return = _if_any(float, state["best_return"])
        self._confirmed_return = _if_any(float, state["confirmed_return"])
        self.metrics = {tag: float(value) for tag, value in state.get("metrics", {}).items()}
        seconds, self._row_seconds = float(state["train_seconds"]), float(state["row_seconds"])
        self._progress.load(self._index, step, duties_from, episodes, seconds)
        self._plan()
        if not self._limit_reached:
            self._confirmed_return = None  # it trains on, to another network
        if self._pruning is not None and not self._due:
            self._tell_pruning(self._pruning, None)
        self._saved = self._progress.moment(self._index)
        return not abandoned.any()


def _if_any(kind: Callable[[Any], Number], value: Any) -> Number | None:
    return None if value is None else kind(value)
