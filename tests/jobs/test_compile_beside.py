"""Programs compiled by another process while a run learns without them."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from halves import often
from resume_cases import CASES
from small_runs import (
    CPU,
    DISCRETE,
    VECTOR,
    ScriptedEnvs,
    count_loads,
    dqn_config,
    drive,
    env_config,
    ppo_config,
    reinforce_config,
    run_config,
)  # fmt: skip

from rltrain.agents import AgentContext, make_agent, multiply_adds
from rltrain.compute import choices
from rltrain.compute.ahead import program_folder
from rltrain.compute.choices import CompileChoice
from rltrain.compute.compiling import Bound, has_compiler
from rltrain.config.application import compose
from rltrain.config.schema import AlgoConfig, AnyNetworkConfig, CNNConfig, DeviceConfig, NetworkConfig, RunConfig
from rltrain.jobs import compile_programs
from rltrain.jobs.build import build_envs, work_of
from rltrain.jobs.compile_beside import BesideCompiler
from rltrain.jobs.job import train_population
from rltrain.jobs.training import Job
from rltrain.machine import TASK_CORES
from rltrain.types import ObservationSpec

CNN = CNNConfig("cnn", "auto", "auto", "auto", "auto", False, "auto", "relu", 1.0)
CONFIG = run_config(dqn_config(), device=DeviceConfig("cpu", 0, 1, "auto", "auto", False))


@pytest.fixture(autouse=True)
def a_core_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled beside a run that has one core only, as some machines do."""
    if len(os.sched_getaffinity(0)) == 1:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


class Compiler:
    """Says what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, done: float) -> None:
        assert 0 <= done < 1
        self.calls.append("start")

    def wait(self) -> None:
        self.calls.append("wait")


def long(config: RunConfig = CONFIG, **changes: object) -> RunConfig:
    return replace(config, **{"total_steps": 10_000_000, **changes})  # type: ignore[arg-type]


def choose_compile(config: RunConfig, members: int = 1, work: int = 4480) -> CompileChoice:
    """Of a network with the multiply-adds of CartPole's."""
    return choices.choose_compile(config, lambda: work, members)


def _adds(network: AnyNetworkConfig, observation: ObservationSpec, algo: AlgoConfig | None = None) -> int:
    config = run_config(algo or dqn_config(), network=network)
    return multiply_adds(AgentContext(config, observation, DISCRETE, CPU))


class TestWork:
    """Multiply-adds of one pass forward, by hand; three actions."""

    def test_dense_layers(self) -> None:
        assert _adds(NetworkConfig("mlp", (64, 64), "relu", 1.0), VECTOR) == 3 * 64 + 64 * 64 + 64 * 3

    def test_a_value_network_counts_too_and_norms_do_not(self) -> None:
        network = NetworkConfig("mlp", (16,), "relu", 1.0, layer_norm=True)
        assert _adds(network, VECTOR, ppo_config()) == (3 * 16 + 16 * 3) + (3 * 8 + 8 * 1)

    def test_small_images(self) -> None:
        hand = 8 * 8 * 16 * (3 * 3 * 4) + 1024 * 128 + 128 * 3
        assert _adds(CNN, ObservationSpec("box", (10, 10, 4), "bool")) == hand

    def test_large_images(self) -> None:
        hand = 20 * 20 * 32 * (8 * 8 * 4) + 9 * 9 * 64 * (4 * 4 * 32) + 7 * 7 * 64 * (3 * 3 * 64) + 3136 * 512 + 512 * 3
        assert _adds(CNN, ObservationSpec("box", (4, 84, 84), "uint8")) == hand


class TestChoice:
    def test_a_short_run_asks_for_no_network(self) -> None:
        assert not choices.choose_compile(replace(CONFIG, total_steps=50_000), lambda: 1 // 0).compile

    def test_where_cartpole_changes_over(self) -> None:
        config, _ = compose(["algo=dqn", "env=CartPole-v1", "total_steps=1000000"])
        config = replace(config, device=CONFIG.device)
        assert choose_compile(config, work=4 * 64 + 64 * 64 + 64 * 2) == CompileChoice(True, 42_039)
        assert choose_compile(config, 16, work=4480) == CompileChoice(True, 5_901)

    def test_a_network_changes_over_sooner_the_longer_its_updates_take(self) -> None:
        config = long(algo=dqn_config(batch_size=128, learning_starts=0))
        steps = [choose_compile(config, work=work).from_step for work in (96, 4480, 168_000, 9_346_048)]
        assert steps == sorted(steps, reverse=True)
        assert steps[0] < 2 * steps[1] and steps[2] < steps[1] / 3 and steps[3] < steps[1] / 100

    def test_the_step_depends_on_no_clock(self) -> None:
        config = long(env=env_config("CartPole-v1"), num_envs=2)
        assert work_of(config) == 4 * 8 + 8 * 2

    def test_a_short_run_never_changes_over(self) -> None:
        assert not choose_compile(replace(CONFIG, total_steps=50_000)).compile

    def test_a_long_one_does_at_a_step_that_does_not_depend_on_its_length(self) -> None:
        first, second = choose_compile(long()), choose_compile(long(total_steps=20_000_000))
        assert first.compile and first == second and 10_000 < first.from_step < 200_000

    def test_a_population_is_slower_to_get_there(self) -> None:
        assert choose_compile(long(), members=32).from_step < choose_compile(long()).from_step

    def test_what_is_asked_for_is_compiled_from_the_start(self) -> None:
        asked = replace(CONFIG, device=replace(CONFIG.device, compile=True))
        assert choose_compile(asked).compile and choose_compile(asked).from_step == 0

    def test_without_a_core_to_spare_a_run_waits_or_does_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        assert choose_compile(long()).from_step == 0 and choose_compile(long()).compile
        assert not choose_compile(replace(CONFIG, total_steps=50_000)).compile


class TestLeaving:
    """Whether the last members of a population go on together (True), one by one (False), or stay (None)."""

    CONFIG = replace(compose(["env=CartPole-v1"])[0], env=env_config("CartPole-v1", vectorization="compiled"))

    def choose(self, members: int, left: list[int], compiled_in: float = math.inf) -> bool | None:
        return choices.choose_leaving(self.CONFIG, lambda: 4480, members, compiled_in, left)

    @pytest.mark.parametrize("compiled_in", [0, 4_000, math.inf])
    def test_one_of_many_goes_on_by_itself_and_several_together(self, compiled_in: float) -> None:
        assert self.choose(16, [45_000], compiled_in) is False
        assert self.choose(16, [45_000] * 4, compiled_in) is True

    def test_where_little_is_gained_they_stay(self) -> None:
        assert self.choose(16, [45_000] * 12, 4_000) is None
        assert self.choose(16, [100]) is None
        assert self.choose(4, [45_000], 0) is None

    @pytest.mark.parametrize("members", often([4, 8, 16, 100], [16]))
    @pytest.mark.parametrize("compile_from", [2_000, 20_000, math.inf])
    def test_who_stays_does_not_leave_later(self, members: int, compile_from: float) -> None:
        """A sweep that is resumed asks where one that was not stopped has asked before, with more steps to go."""
        for count in range(1, members // 2 + 1):
            found = []
            for left in range(50_000, 0, -500):
                found.append(self.choose(members, [left] * count, max(0, compile_from - 50_000 + left)) is None)
            assert found == sorted(found)


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_an_agent_changes_over_at_its_step_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    compiled: list[int] = []
    context = AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=30, compiler=compiler)
    agent = make_agent(context)
    monkeypatch.setattr(agent._learner.program, "compile", lambda: compiled.append(agent.env_steps))
    envs = ScriptedEnvs(1)
    list(drive(agent, envs, 29))
    assert set(compiler.calls) == {"start"} and not compiled
    list(drive(agent, envs, 20))
    assert compiler.calls.count("wait") == 1 and compiled == [30]


def _from_episodes(**changes: object) -> RunConfig:
    env = replace(env_config("CartPole-v1"), vectorization="compiled")
    return replace(run_config(reinforce_config(), env=env, num_envs=2), **changes)  # type: ignore[arg-type]


def test_from_whole_episodes_a_long_run_changes_over_where_environments_are_on_the_device() -> None:
    auto = _from_episodes(device=CONFIG.device, total_steps=100_000_000)
    assert choose_compile(auto).compile and choose_compile(auto).from_step > 0
    assert not choose_compile(replace(auto, total_steps=100_000)).compile
    assert not choose_compile(replace(auto, env=replace(auto.env, vectorization="sync"))).compile
    assert choose_compile(auto, members=16).from_step < choose_compile(auto).from_step


def test_from_whole_episodes_it_changes_over_after_the_update_that_reaches_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Bound] = []
    monkeypatch.setattr(Bound, "compile", lambda program: compiled.append(program))
    config, compiler = _from_episodes(), Compiler()
    with closing(build_envs(config)) as envs:
        envs.reset()
        context = AgentContext(
            config, envs.observation_spec, envs.action_spec, CPU, True, compile_from=100, compiler=compiler
        )
        agent = make_agent(context)
        made, state = 0, agent.state_dict()
        while not compiled:
            before, state = made, agent.state_dict()
            made += int(agent.iterate(envs, 10_000).taken.sum())
        assert state["state"]["compiled"] is False and agent.state_dict()["state"]["compiled"] is True
        updates = agent.state_dict()["state"]["gradient_steps"], state["state"]["gradient_steps"]
        assert made >= 100 and updates[0] == updates[1] + 1 and before < made
        assert set(compiler.calls[:-1]) == {"start"} and compiler.calls[-1] == "wait"
        assert agent._stepper.program in compiled
        continued = make_agent(replace(context, compiler=(later := Compiler())))
        continued.load_state_dict(agent.state_dict())
        assert later.calls == ["wait"] and continued._compiled
        earlier = make_agent(replace(context, compiler=(later := Compiler())))
        earlier.load_state_dict(state)
        assert later.calls == [] and not earlier._compiled


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "case",
    [
        *(case for case in CASES if "in the program" in case and "MinAtar" not in case),
        "dqn 3 envs",
        "rainbow",
        "dqn convolutions, 2 envs",
    ],
)
def test_the_other_process_makes_programs_of_what_is_built_there(
    case: str, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, made, acting = CASES[case], list[Bound](), list[str]()
    monkeypatch.setattr(Bound, "make_program", lambda program: made.append(program))
    monkeypatch.setattr("rltrain.engine.members.ActingProgram", lambda *_: lambda *_: acting.append("made"))
    with closing(build_envs(config)) as envs:
        population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
        context = AgentContext(
            config, envs.observation_spec, envs.action_spec, CPU, True, population=population, compile_from=100
        )
    compile_programs.make_all(context)
    assert made
    in_torch = case in ("rainbow", "dqn convolutions, 2 envs")  # where NumPy does not act
    assert bool(acting) == (members > 1 and in_torch)


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "case",
    [
        "dqn 3 envs", "dqn stepped in the program, 3 envs", "dqn stepped in the program, wrapped",
        "rainbow", "iqn noisy, stepped in the program", "reinforce stepped in the program, 2 envs",
        "ppo, 3 envs", "ppo stepped in the program, 3 envs", "pqn stepped in the program, held actions",
    ],
)  # fmt: skip
def test_a_run_compiles_nothing_that_the_other_process_has_compiled(
    case: str, members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = replace(CASES[case].device, compile="auto")
    jobs = [Job(replace(CASES[case], seed=s, device=device), tmp_path / str(s)) for s in range(members)]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("rltrain.jobs.compile_beside._PATIENCE", None)
    monkeypatch.setattr("rltrain.jobs.build.choose_compile", lambda *_: CompileChoice(True, 60))
    compiled_here = list[object]()
    monkeypatch.setattr("rltrain.compute.ahead._compile", lambda *args: compiled_here.append(args))
    loads = count_loads(monkeypatch)
    for job in jobs:
        job.folder.mkdir()
    assert all(isinstance(outcome, float) for outcome in train_population(jobs))
    assert loads and not compiled_here


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_what_the_other_process_compiles_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("rltrain.jobs.compile_beside._PATIENCE", None)
    context = AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=20)
    compiler = BesideCompiler(context, torch.get_num_threads())
    compiler.start(0.0)
    compiler.wait()
    found = sorted(program_folder().glob("*.so"))
    assert len(found) == 1
    agent = make_agent(replace(context, compiler=compiler))
    loads = count_loads(monkeypatch)
    list(drive(agent, ScriptedEnvs(1), 40))
    assert len(loads) == 1 and sorted(program_folder().glob("*.so")) == found


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_closing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = BesideCompiler(AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=20), 1)
    compiler.start(0.0)
    compiler.close()
    assert compiler._process is not None and compiler._process.returncode == -9


def test_it_is_said_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'Traceback (most recent call last):' >&2\necho 'ValueError: broken' >&2\nexit 3\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    compiler = BesideCompiler(AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=20), 1)
    compiler.start(0.0)
    compiler.wait()
    said = capsys.readouterr().err
    assert said == "warning   compiling beside the run failed, so the run compiles by itself: ValueError: broken\n"


def test_it_gives_way_to_the_run_and_is_not_waited_for_long_where_there_is_a_core_to_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Populations side by side that have all cores would else starve it until they wait for it."""
    monkeypatch.setattr("rltrain.jobs.compile_beside._PATIENCE", 0.1)
    monkeypatch.setattr("rltrain.machine.all_cores", lambda: 4)
    context = AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=20)
    for given, ended in {"4": -signal.SIGKILL, "2": -signal.SIGKILL, "1": 0}.items():
        monkeypatch.setenv(TASK_CORES, given)
        compiler = BesideCompiler(context, threads=1)
        assert pickle.loads(compiler._request)[-1] is bool(ended)
        compiler._process = process = subprocess.Popen(["sleep", "0.5"], start_new_session=True)
        compiler.wait()
        assert process.returncode == ended


def test_where_no_core_is_to_spare_it_begins_when_half_of_the_uncompiled_steps_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many populations end before they change over: what is compiled for them takes time from them for nothing."""
    monkeypatch.setattr("rltrain.machine.all_cores", lambda: 4)
    context = AgentContext(CONFIG, VECTOR, DISCRETE, CPU, True, compile_from=20)
    for given, early in {"4": True, "1": False}.items():
        monkeypatch.setenv(TASK_CORES, given)
        compiler = BesideCompiler(context, threads=1)
        with closing(compiler):
            compiler.start(0.49)
            assert (compiler._process is not None) == early
            compiler.start(0.5)
            assert compiler._process is not None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session")
def test_the_other_process_gives_way_to_the_run() -> None:
    code = (
        "from rltrain.jobs.compile_programs import _give_way; _give_way(); print(open('/proc/self/autogroup').read())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    ).stdout
    assert said.split()[1:] == ["nice", "19"]
