"""The training loop: act, step, observe, update, record; and what is due at which environment step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import Agent, IteratingAgent, StateDict, SteppedByAgent
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RunFailed
from rltrain.loggers.logger import Logger
from rltrain.training.evaluator import CONFIRM_KEY_OFFSET, REPORT_EPISODES, EpisodeStatistics, Evaluator
from rltrain.training.limits import reached_limit
from rltrain.training.pruning import SeedPruning
from rltrain.training.recorder import Recorder
from rltrain.training.saving import Checkpointer, SaveTimes
from rltrain.training.stopping import StopRequest
from rltrain.types import Episode

Number = TypeVar("Number", int, float)


class Trainer:
    """One run from its present state to its end, or to a request to stop.

    Everything it counts is in environment steps. What is due at a step is done in a fixed order (log, evaluate, film,
    save), so that a run which is stopped and continued does the same things at the same steps.
    """

    def __init__(
        self,
        config: RunConfig,
        envs: VectorEnv,
        agent: Agent,
        evaluator: Evaluator,
        logger: Logger,
        checkpointer: Checkpointer,
        device: torch.device,
        stop: StopRequest,
        saves_periodically: bool = True,
        pruning: SeedPruning | None = None,
    ) -> None:
        """`saves_periodically` is False for a member of a population, which saves all its members together; `pruning`
        may end a trial's run at an evaluation."""
        self._config = config
        self._envs = envs
        self._agent = agent
        self._evaluator = evaluator
        self._logger = logger
        self._checkpointer = checkpointer
        self._stop = stop
        self._pruning = pruning
        self._prunes = saves_periodically
        self._saves = SaveTimes(config.checkpoint.period if saves_periodically else None)
        periods = (config.log_period, config.eval.period, config.video.period, self._saves.steps)
        self._periods = [period for period in periods if period is not None]
        # What an agent that steps by itself has measured comes from the host.
        self._recorder = Recorder(torch.device("cpu") if envs.stepped_by_agent else device)
        self._obs: np.ndarray | None = None
        self.step = 0
        self.episodes = 0
        self.solve_step: int | None = None
        self.best_return: float | None = None
        self._confirmed_return: float | None = None  # of the last evaluation on which the run might have stopped
        self._duties_from: int | None = None  # the step before the vector step whose duties are not yet done
        self._saved_step: int | None = None
        self.train_seconds = 0.0
        self._row_step, self._row_seconds = 0, 0.0  # where the last row of metrics was written

    def run(self) -> bool:
        """Trains to the end; True if it got there, False if it was asked to stop. Either way its state is saved.

        Raises:
            RunFailed: an environment failed, or a number is not finite; nothing is saved then.
        """
        if self._obs is None:
            self._obs = self._envs.reset()
        if self._duties_from is not None:
            self.do_duties()
        while not self.done and not self._stop_requested():
            self._vector_step()
            if self._is_due():
                self.do_duties()
        if not self.saved:
            self.save()
        return self.done

    def _stop_requested(self) -> bool:
        """Looks at the signals once: saves if that was asked for, in the middle of an evaluation too."""
        if self._stop.take_save_request():
            self.save()
        return self._stop.requested

    @property
    def done(self) -> bool:
        """Whether a limit is reached, or the run given up, and everything that was due then is done."""
        return (self._limit_reached or self.pruned) and self._duties_from is None

    @property
    def pruned(self) -> bool:
        """Whether the trial that the run belongs to was given up."""
        return self._pruning is not None and self._pruning.pruned

    @property
    def saved(self) -> bool:
        """Whether the newest checkpoint is of the present state."""
        return self._saved_step == self.step and self._duties_from is None

    @property
    def duties_from(self) -> int | None:
        """The step before the vector step whose duties are not yet done; None where all are."""
        return self._duties_from

    @property
    def metric_sums(self) -> tuple[Mapping[str, Tensor | float], int]:
        """The sums of the metrics since the last row, and over how many updates."""
        return self._recorder.sums

    @property
    def next_duty(self) -> int:
        """The first environment step at which something will be due, if no limit of episodes is reached before."""
        return min(self._config.total_steps, *((self.step // period + 1) * period for period in self._periods))

    @property
    def steps_to_duty(self) -> int:
        """Vector steps after which something may be due, and before which nothing is."""
        steps = -(-(self.next_duty - self.step) // self._config.num_envs)
        most_episodes = self._config.total_episodes
        if most_episodes is None:
            return steps
        return min(steps, -(-(most_episodes - self.episodes) // self._config.num_envs))  # each ends one at most

    @property
    def _limit_reached(self) -> bool:
        return reached_limit(self._config, self.step, self.episodes, self._confirmed_return) is not None

    def _vector_step(self) -> None:
        start = time.perf_counter()
        if self._envs.stepped_by_agent:
            self._block_of_steps()
        else:
            self._one_step()
        self.train_seconds += time.perf_counter() - start

    def _one_step(self) -> None:
        agent = self._agent
        assert self._obs is not None
        action = agent.act(self._obs)
        transition, self._obs, episodes = self._envs.step(action, agent.active)
        agent.observe(transition, episodes)
        metrics = agent.update()
        self._duties_from = self.step
        self.step += int(transition.active.sum())
        self.episodes += len(episodes)
        self._recorder.add(metrics, episodes, self.step)

    def _block_of_steps(self) -> None:
        """As many as the agent makes in one go, at most until something is due."""
        agent = cast(IteratingAgent, self._agent)
        block = agent.iterate(cast(SteppedByAgent, self._envs), self.steps_to_duty)
        reached = [self.step, *(self.step + block.taken[:, 0].cumsum()).tolist()]  # after each vector step
        learned_at = [reached[number] for number in block.learned_at]
        self._duties_from, self.step = reached[-2:]
        self.episodes += len(block.episodes)
        self._recorder.add_block(block.metrics, block.episodes, learned_at)

    def record_steps(
        self, steps: tuple[int, int], episodes: list[Episode], sums: Mapping[str, Tensor], updates: int, seconds: float
    ) -> bool:
        """Account for vector steps that the population made; returns whether something is due after the last of them.

        Args:
            steps: the environment steps made before the last vector step, and after it.
            episodes: those that ended.
            sums: of the metrics since the last row, over `updates` updates.
            seconds: that they took.
        """
        self._duties_from, self.step = steps
        self.episodes += len(episodes)
        self._recorder.replace_sums(sums, updates, episodes)
        self.train_seconds += seconds
        return self._is_due()

    def _is_due(self) -> bool:
        """Whether this step has duties; if it has none they count as done."""
        if self._limit_reached or any(map(self._crossed, self._periods)):
            return True
        self._duties_from = None
        return False

    def _crossed(self, period: int | None) -> bool:
        assert self._duties_from is not None
        return period is not None and self.step // period > self._duties_from // period

    def do_duties(self) -> None:
        """Logs, evaluates and saves what is due. An evaluation that is interrupted leaves all of it for the resume."""
        config = self._config
        evaluation = None
        if self._crossed(config.eval.period):
            evaluation = self._evaluator.evaluate(self._agent, config.eval.episodes, self.step, self._stop_requested)
            if evaluation is None or not self._judge(evaluation):
                return
        row: dict[str, float] = {}
        if self._crossed(config.log_period) or self._limit_reached:
            row |= self._log_row()
        if evaluation is not None:
            row |= {"eval/episode_return": evaluation.mean, "eval/episode_return_std": evaluation.std}
            row |= evaluation.diagnostics
        if row:
            self._logger.log(self.step, row)
        if self._crossed(config.video.period):
            self._checkpointer.film(self.step, self._checked_state())
        save = self._crossed(self._saves.steps) and self._saves.affordable()
        self._duties_from = None
        if self._pruning is not None:
            self._tell_pruning(self._pruning, evaluation)
        if save:
            self.save()

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
        return {**self._recorder.flush(self.step), **self._agent.scalars(), "time/steps_per_second": speed}

    def _judge(self, evaluation: EpisodeStatistics) -> bool:
        """Keeps the best network and decides whether to stop early; False if that was interrupted."""
        config = self._config
        if config.stop_at_return is not None and evaluation.mean >= config.stop_at_return:
            key = CONFIRM_KEY_OFFSET + self.step
            confirmation = self._evaluator.evaluate(self._agent, REPORT_EPISODES, key, self._stop_requested)
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
        with self._saves.measured():
            self._logger.flush()  # a run that is killed goes on from here: what was logged by now must be in the files
            self._checkpointer.save(self.step, self._checked_state())
            if self._prunes:
                self._checkpointer.prune()
        self._note_saved()

    def _checked_state(self) -> StateDict:
        """The state, once it is known to be finite: a broken network never replaces a good checkpoint."""
        self._recorder.check(self.step)
        state = self.state_dict()
        for name, tensor in state["network"].items():
            if not torch.isfinite(tensor).all():
                raise RunFailed(f"the weights of {name} are not finite at environment step {self.step}")
        return state

    def state_dict(self) -> StateDict:
        """All that a continued run needs: the agent's sections, and `state` with the trainer's own counters."""
        agent = self._agent.state_dict()
        state = {
            "agent": agent["state"],
            "envs": self._envs.state_dict(),
            "recorder": self._recorder.state_dict(),
            "step": self.step,
            "episodes": self.episodes,
            "solve_step": self.solve_step,
            "best_return": self.best_return,
            "confirmed_return": self._confirmed_return,
            "duties_from": self._duties_from,
            "train_seconds": self.train_seconds,
            "row_step": self._row_step,
            "row_seconds": self._row_seconds,
        }
        return {**agent, "state": state}

    def load_state_dict(self, sections: Mapping[str, Mapping[str, Any]]) -> bool:
        """Continues from `sections`; False if running episodes could not be continued and begin anew."""
        state = sections["state"]
        self._agent.load_state_dict({**sections, "state": state["agent"]})
        running = state["envs"]["episode"].copy()
        self._obs, exact = self._envs.load_state_dict(state["envs"])
        if not exact:
            self._agent.abandon_episodes(self._envs.state_dict()["episode"] != running)
        self._recorder.load_state_dict(state["recorder"])
        self.step, self.episodes, self._row_step = (int(state[key]) for key in ("step", "episodes", "row_step"))
        self.solve_step, self._duties_from = (_if_any(int, state[key]) for key in ("solve_step", "duties_from"))
        self.best_return = _if_any(float, state["best_return"])
        self._confirmed_return = _if_any(float, state["confirmed_return"])
        self.train_seconds, self._row_seconds = float(state["train_seconds"]), float(state["row_seconds"])
        if self._pruning is not None and self._duties_from is None:
            self._tell_pruning(self._pruning, None)
        self._note_saved()
        return exact

    def _note_saved(self) -> None:
        # With duties undone the state of this step is yet to change.
        self._saved_step = self.step if self._duties_from is None else None


def _if_any(kind: Callable[[Any], Number], value: Any) -> Number | None:
    return None if value is None else kind(value)
