"""Which device a request gets."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from small_runs import dqn_config, env_config, q_learning_config, reinforce_config, run_config

from rltrain.compute import device
from rltrain.compute.device import choose_threads, configure_torch, device_named, resolve_device, run_device
from rltrain.config.schema import DeviceConfig, NetworkConfig
from rltrain.errors import RequestError
from rltrain.jobs.build import build


def config(name: str, index: int = 0, threads: int | str = "auto", deterministic: bool = False) -> DeviceConfig:
    return DeviceConfig(name, index, threads, False, "auto", deterministic)  # type: ignore[arg-type]


@pytest.fixture
def cuda_devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize("cuda_devices", [0, 2], indirect=True)
@pytest.mark.usefixtures("cuda_devices")
def test_cpu_is_the_cpu() -> None:
    assert resolve_device(config("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("cuda_devices", [2], indirect=True)
@pytest.mark.usefixtures("cuda_devices")
def test_auto_and_cuda_take_the_device_of_that_index() -> None:
    assert resolve_device(config("auto")) == torch.device("cuda", 0)
    assert resolve_device(config("cuda", 1)) == torch.device("cuda", 1)
    for name in ("auto", "cuda"):
        with pytest.raises(RequestError, match=f"device={name} device.index=2: 2 CUDA devices are visible"):
            resolve_device(config(name, 2))


@pytest.mark.parametrize("cuda_devices", [2], indirect=True)
@pytest.mark.usefixtures("cuda_devices")
def test_a_program_names_a_device_as_it_likes() -> None:
    cpu, first, second = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
    assert [device_named(given) for given in ("cpu", cpu, "auto", "cuda", "cuda:1", second)] == [
        cpu, cpu, first, first, second, second,
    ]  # fmt: skip
    with pytest.raises(RequestError, match=r"device=cuda device\.index=7: 2 CUDA devices are visible"):
        device_named("cuda:7")


@pytest.mark.parametrize("given", ["gpu", "auto:1", "cuda:", "", 0, None, True, torch.device("meta")])
def test_another_device_of_a_program_is_refused_by_its_value(given: object) -> None:
    with pytest.raises(RequestError, match=rf"^device={re.escape(repr(given))}: must be 'auto', 'cpu', 'cuda'"):
        device_named(given)


@pytest.mark.parametrize("cuda_devices", [0], indirect=True)
@pytest.mark.usefixtures("cuda_devices")
def test_without_cuda_auto_falls_back_and_cuda_is_refused() -> None:
    assert resolve_device(config("auto")) == torch.device("cpu")
    with pytest.raises(RequestError, match="torch sees no CUDA device"):
        resolve_device(config("cuda"))
    assert device_named("auto") == torch.device("cpu")
    with pytest.raises(RequestError, match="torch sees no CUDA device"):
        device_named("cuda")


@pytest.mark.parametrize("cuda_devices", [2], indirect=True)
@pytest.mark.usefixtures("cuda_devices")
def test_a_table_stays_on_the_cpu() -> None:
    asked = config("auto")
    assert run_device(run_config(q_learning_config(), device=asked)) == torch.device("cpu")
    assert run_device(run_config(dqn_config(), device=asked)) == torch.device("cuda", 0)


def test_threads_and_determinism_are_set_for_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job before this one in the same process may have had others."""
    state = {"deterministic": False}

    def use(mode: bool, *, warn_only: bool = False) -> None:
        assert mode != state["deterministic"], "asking for what is already so imports the compiler: 1 s of every start"
        assert warn_only
        state["deterministic"] = mode

    monkeypatch.setattr(torch, "use_deterministic_algorithms", use)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: state["deterministic"])
    threads = torch.get_num_threads()
    try:
        for asked, expected_threads, deterministic in [
            (2, 2, True),
            ("auto", 1, True),
            ("auto", 1, False),
            (1, 1, False),
        ]:
            configure_torch(config("cpu", threads=asked, deterministic=deterministic))
            assert torch.get_num_threads() == expected_threads
            assert state["deterministic"] == deterministic
    finally:
        torch.set_num_threads(threads)


SMALL, LARGE = 4_480 * 128, 300_000_000  # multiply-adds: DQN on CartPole, and on Atari


@pytest.mark.parametrize(
    ("asked", "work", "before", "cores", "threads"),
    [
        ("auto", SMALL, None, 4, 1),
        ("auto", LARGE, None, 4, 4),
        ("auto", 17_000_000, None, 4, 2),
        ("auto", LARGE, None, 64, 16),
        ("auto", LARGE, None, 1, 1),
        ("auto", SMALL, 3, 4, 3),  # goes on as it began, bit for bit
        ("auto", LARGE, 1, 4, 1),
        ("auto", LARGE, 16, 4, 4),  # on a smaller machine it cannot
        ("auto", LARGE, -1, 4, 1),
        ("auto", LARGE, "many", 4, 4),
        (3, SMALL, None, 2, 3),
        (3, SMALL, 2, 2, 3),
    ],
)
def test_as_many_threads_as_the_work_of_an_update_keeps_busy(
    asked: int | str, work: int, before: object, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: cores)
    assert choose_threads(config("cpu", threads=asked), torch.device("cpu"), lambda: work, before) == threads


def test_beside_a_gpu_one_thread_is_enough() -> None:
    assert choose_threads(config("cuda"), torch.device("cuda", 0), lambda: LARGE) == 1


@pytest.mark.parametrize(
    ("algo", "members", "threads"),
    [
        (dqn_config(batch_size=64), 1, 1),
        (dqn_config(batch_size=6_000), 1, 2),
        (dqn_config(batch_size=1_500), 4, 2),
        (reinforce_config(episodes_per_update=4), 1, 1),
        (reinforce_config(episodes_per_update=60), 1, 2),
    ],
)
def test_a_run_counts_the_work_of_its_own_networks(
    algo: Any, members: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: 8)
    network = NetworkConfig("mlp", (512,), "relu", 1.0)  # of CartPole 3,072 multiply-adds
    common = {"network": network, "device": config("cpu"), "env": env_config("CartPole-v1")}
    configs = tuple(run_config(algo, seed=seed, **common) for seed in range(members))
    before = torch.get_num_threads()
    try:
        with build(configs[0], configs if members > 1 else ()) as parts:
            found = parts.threads, torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert found == (threads, threads)


def test_actions_of_a_few_rows_are_drawn_by_one_thread_whatever_updates_take() -> None:
    """torch's softmax wakes a second thread even for sixteen rows, and takes ten times as long."""
    seen: list[int] = []
    config = run_config(reinforce_config(), device=DeviceConfig("cpu", 0, 2, False, False, False))
    before = torch.get_num_threads()
    try:
        with build(config) as parts:
            agent: Any = parts.agent
            choose = agent._algorithm.choose
            agent._algorithm.choose = lambda *args: [seen.append(torch.get_num_threads()), choose(*args)][1]
            agent.act(parts.envs.reset())
            assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


FAULTS = """
import ctypes, resource
from rltrain.config.schema import DeviceConfig
from rltrain.compute.device import configure_torch
configure_torch(DeviceConfig("cpu", 0, 1, False, False, False))
libc, size = ctypes.CDLL(None), 2**20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def of_one_update():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(size) for _ in range(20)]
    for block in blocks:
        libc.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([of_one_update() for _ in range(6)][-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_an_update_frees_is_there_for_the_next_one() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 256, "of 5,120 pages; the system is asked for memory again in every update"
