"""From a validated config to the parts of a run. Reads the registries; no maths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from rltrain.agents import Agent, AgentContext, make_agent, multiply_adds
from rltrain.compute.choices import CompileChoice, choose_compile, choose_cuda_graphs
from rltrain.compute.compiling import has_compiler
from rltrain.compute.device import choose_threads, configure_torch, float32_by_default, run_device
from rltrain.config.algorithms import card_of
from rltrain.config.plain import at, to_plain
from rltrain.config.schema import RunConfig
from rltrain.envs.choice import Choice
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.probe import probe
from rltrain.envs.replays import Replays, look
from rltrain.envs.vector import VectorEnv
from rltrain.errors import CheckpointError, RequestError
from rltrain.jobs.compile_beside import BesideCompiler
from rltrain.jobs.vectorizing import choose_vectorization, stepped
from rltrain.loggers.further import FurtherLogger
from rltrain.loggers.jsonl import JsonlLogger, last_tags
from rltrain.loggers.logger import EvaluationDisplay, Logger, MultiLogger
from rltrain.policy.source import check_network
from rltrain.seeding import EpisodeSeeds
from rltrain.storage.checkpoint import Checkpoint
from rltrain.storage.run_folder import RunFolder
from rltrain.training.evaluation_limits import MOST_LANES
from rltrain.training.evaluator import Evaluator

VECTORIZATION = "vectorization"
"""In a checkpoint's manifest: how the environments are stepped."""
POPULATION = "population"
"""In a checkpoint's manifest: {"members": [folder, ...], "member": index, "moment": vector steps, "ended": bool}."""


@dataclass(frozen=True)
class Parts:
    """The parts of a run, and what `auto` chose for it."""

    envs: VectorEnv
    agent: Agent
    device: torch.device
    threads: int
    compiled: bool
    compile_from: int  # the environment step of a member from which on it is
    cuda_graphs: bool
    lacks_compiler: bool  # nothing is compiled, only because there is none
    vectorization: Choice
    replays: Replays  # whether episodes do; known where the run begins, and asked for where it is resumed

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions that decide the last bits of the numbers, under the keys of a checkpoint's manifest."""
        return {
            "device": str(self.device),
            "threads": self.threads,
            "compile": self.compiled,
            "compile_from": self.compile_from,
            "cuda_graphs": self.cuda_graphs,
            VECTORIZATION: self.vectorization.way,
        }


@contextmanager
def build(
    config: RunConfig,
    population: tuple[RunConfig, ...] = (),
    source: Checkpoint | None = None,
) -> Iterator[Parts]:
    """The parts of a run; its environments are closed at the end.

    Args:
        population: the configs of all members, `config` first among them, where several runs are trained as one.
        source: the checkpoint that will be continued: its environments are stepped as they were. A foreign one's config
            may ask for any amount of memory.

    Raises:
        RequestError: no such device, an environment that cannot be made.
    """
    device = run_device(config)
    configure_torch(config.device)
    cuda_graphs = choose_cuda_graphs(config.device, device)
    members = max(1, len(population))
    before = _auto_chose(source, "env.vectorization", VECTORIZATION)
    threads_before = _auto_chose(source, "device.threads", "threads")
    choose = partial(choose_vectorization, config, members, device, before=before)
    # Each depends on the other: compiling saves more where environments are stepped in the program too.
    if_compiled = stepped(config, choose(compiled=True).way)
    done = 0 if source is None else source.step
    wanted = None if source is None or _left_others(source, members) else _chosen_before(config, source)
    wanted = wanted or choose_compile(if_compiled, partial(work_of, config), members, cuda_graphs, done)
    compiled = replace(wanted, compile=wanted.compile and has_compiler())
    vectorization = choose(compiled=compiled.compile or cuda_graphs)
    config = stepped(config, vectorization.way)
    population = tuple(stepped(member, vectorization.way) for member in population)
    if source is not None:
        _check_environments(config, source)
    replays = look(config.env) if source is None and config.resumable else Replays()
    envs = build_envs(config, population)
    try:
        context = AgentContext(
            config,
            envs.observation_spec,
            envs.action_spec,
            device,
            compiled.compile,
            population,
            cuda_graphs,
            compiled.from_step,
        )
        if source is not None:
            check_network(context, source)
        with float32_by_default():
            threads = choose_threads(config.device, device, partial(_update_work, context), threads_before)
        torch.set_num_threads(threads)
        with compiling_beside(context, threads) as context:
            with float32_by_default():
                agent = make_agent(context)
            lacks_compiler = wanted.compile and not compiled.compile
            how = compiled.compile, compiled.from_step, cuda_graphs, lacks_compiler
            yield Parts(envs, agent, device, threads, *how, vectorization, replays)
    finally:
        envs.close()


def _left_others(source: Checkpoint, members: int) -> bool:
    """Whether a run of a population goes on without some of the others, in another program."""
    entry = source.manifest.get(POPULATION)
    names = entry.get("members") if isinstance(entry, Mapping) else None
    return isinstance(names, list) and len(names) != members


def _chosen_before(config: RunConfig, source: Checkpoint) -> CompileChoice | None:
    """The choice of `device.compile=auto` when the run began; None where that is still to be chosen."""
    compiled = _auto_chose(source, "device.compile", "compile")
    if compiled is None or config.device.compile != "auto":
        return None
    from_step = source.manifest.get("compile_from", 0)
    return CompileChoice(bool(compiled), from_step if type(from_step) is int else 0)


def _auto_chose(source: Checkpoint | None, key: str, entry: str) -> Any:
    """The choice of `key=auto` when the run began, an entry of its checkpoint's manifest; None where there is no
    checkpoint, or the key was not `auto`."""
    if source is None or at(source.manifest.get("config", {}), key.split(".")) != "auto":
        return None
    return source.manifest.get(entry)


def _update_work(context: AgentContext) -> int:
    """Multiply-adds of a pass forward over all that an update of all members learns from."""
    algo, num_envs = context.config.algo, context.config.num_envs
    samples = card_of(algo).samples_per_update(algo, num_envs)
    return len(context.configs) * samples * multiply_adds(context) if samples else 0


def work_of(config: RunConfig) -> int:
    """Multiply-adds of a pass forward for one observation: the same on every machine, as a time is not."""
    with float32_by_default():
        return multiply_adds(AgentContext(config, *probe(config.env), torch.device("cpu")))


@contextmanager
def compiling_beside(context: AgentContext, threads: int) -> Iterator[AgentContext]:
    """`context` with the compiler of a run that changes over to compiled programs later; it starts when the agent says
    so."""
    if not (context.compile_update and context.compile_from):
        yield context
        return
    compiler = BesideCompiler(context, threads)
    try:
        yield replace(context, compiler=compiler)
    finally:
        compiler.close()


def _check_environments(config: RunConfig, source: Checkpoint) -> None:
    try:
        running = len(source.state["envs"]["episode"])
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{source.folder}: does not fit this run: its state has no environments") from error
    if running != config.num_envs:
        raise CheckpointError(
            f"{source.folder}: does not fit this run: it has {running} environments, and num_envs={config.num_envs}"
        )


def build_envs(config: RunConfig, population: tuple[RunConfig, ...] = ()) -> VectorEnv:
    """The training environments; every episode of each has a seed of its own. Of a population, member by member."""
    seeds = [member.seed for member in population or (config,)]
    streams = [(seed, env) for seed in seeds for env in range(config.num_envs)]
    return make_vector_env(config.env, len(streams), EpisodeSeeds("environment", streams), len(seeds))


def build_evaluator(
    configs: Sequence[RunConfig],
    episodes: int,
    statistics: Callable[[], Mapping[str, np.ndarray]],
    display: EvaluationDisplay | None = None,
    before: object = None,
) -> Evaluator:
    """Builds the evaluator of one run, or of all members of a population.

    Args:
        episodes: the most that one evaluation will play.
        statistics: of the wrappers of the training environments, asked at each evaluation.
        before: what a checkpoint's manifest says of EVAL_ENVS: what `auto` chose before is chosen again.
    """
    first = configs[0]
    num_envs = first.eval.num_envs
    if num_envs == "auto" and type(before) is int and 1 <= before <= MOST_LANES:
        num_envs = before
    return Evaluator(
        first.env,
        [config.seed for config in configs],
        episodes,
        statistics,
        num_envs=num_envs,
        period=first.eval.period,
        total_steps=[config.total_steps for config in configs],
        display=display,
    )


def evaluates_meanwhile(config: RunConfig) -> bool:
    """Whether a run is evaluated before it ends."""
    period = config.eval.period
    return period is not None and period < config.total_steps + config.num_envs


def open_evaluator(evaluator: Evaluator, config: RunConfig) -> None:
    """Makes the environments of an evaluator beside those that train, if there will be evaluations meanwhile; else they
    are made at the end, once those that train are closed.

    Raises:
        RequestError: they cannot be made.
    """
    if not evaluates_meanwhile(config):
        return
    try:
        evaluator.open()
    except RequestError as error:
        why = "evaluations during training need an environment beside those that train"
        raise RequestError(
            f"eval.period={config.eval.period}: {why}: {error}"
            "\neval.period=null evaluates at the end only, when those are closed"
        ) from error


def build_logger(config: RunConfig, run: RunFolder, resume_step: int | None, screen: Logger) -> Logger:
    """All loggers of a run; `screen` is what shows a person how it goes."""
    from rltrain.loggers.tensorboard import TensorBoardLogger

    plain = to_plain(config)
    further = [FurtherLogger(name, run.path, resume_step, plain) for name in config.loggers]
    tags = () if resume_step is None else last_tags(run.metrics)
    tensorboard = TensorBoardLogger(run.path, resume_step, plain, tags)
    rows = JsonlLogger(run.metrics, resume_step, longest=config.log_period + config.num_envs)
    return MultiLogger([rows, tensorboard, *further, screen])
