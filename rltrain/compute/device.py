"""Where tensors live, and how many threads work on them."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rltrain import machine
from rltrain.config.algorithms import card_of
from rltrain.config.schema import DeviceConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.machine import available_cores

# Of glibc's malloc.h, in bytes: what is kept of the heap's free end, and the smallest block that is mapped by itself.
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 256 * 2**20
_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 32 * 2**20
# Multiply-adds, forward, for which a further thread pays, also where others want its core now and then: DQN's 512-512
# has 35 million for a batch of 128, its convolutions for Atari 300 million for one of 32.
_WORK_OF_A_THREAD, _MOST_THREADS = 12_000_000, 16


def resolve_device(config: DeviceConfig) -> torch.device:
    """The device that `device=...` asks for; `auto` takes CUDA where there is one.

    Raises:
        RequestError: `cuda` is asked for by name and is not there.
    """
    if config.name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.index < count:
        return torch.device("cuda", config.index)
    if config.name == "auto" and count == 0:
        return torch.device("cpu")
    found = f"{count} CUDA devices are visible" if count else "torch sees no CUDA device"
    raise RequestError(f"device={config.name} device.index={config.index}: {found}; use device=cpu or another index")


def device_named(given: object) -> torch.device:
    """The device as a program gives it: auto, cpu, cuda, cuda:1, or a torch.device.

    Raises:
        RequestError: it is another one, or is not there.
    """
    found = re.fullmatch(r"(auto|cpu|cuda)(?::(\d+))?", str(given)) if isinstance(given, str | torch.device) else None
    if found is None or (found[1] == "auto" and found[2]):
        raise RequestError(
            f"device={given!r}: must be 'auto', 'cpu', 'cuda', one as 'cuda:1', or a torch.device of these"
        )
    return resolve_device(DeviceConfig(found[1], int(found[2] or 0), 1, False, False, False))  # type: ignore[arg-type]


def run_device(config: RunConfig) -> torch.device:
    """The device of a run's agent: that of `device=...`, but the CPU for an algorithm that has only tables.

    Raises:
        RequestError: see `resolve_device`.
    """
    return torch.device("cpu") if card_of(config.algo).on_cpu else resolve_device(config.device)


def configure_torch(config: DeviceConfig) -> None:
    """Sets the process's thread count, determinism and use of memory for one job. Of `threads=auto` it is 1, until
    `choose_threads` knows more."""
    torch.set_num_threads(1 if config.threads == "auto" else config.threads)
    # Asking for what is already so would import the whole compiler, a second of every start.
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    _keep_freed_memory()


@contextmanager
def torch_kept() -> Iterator[None]:
    """Restores afterwards what `configure_torch` and `choose_threads` set in this process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if (deterministic, warn_only) != (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ):
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def choose_threads(config: DeviceConfig, device: torch.device, work: Callable[[], int], before: object = None) -> int:
    """How many threads of torch compute on the CPU.

    `auto`: one, as long as matrices are small, as those of classic control are: a second costs more in synchronisation
    than it computes. Convolutions, and updates from thousands of steps, get more, up to the cores.

    Args:
        work: counts the multiply-adds of one pass forward of an update.
        before: of a run that is continued, as its checkpoint says: another number would round otherwise.
    """
    if config.threads != "auto":
        return config.threads
    if device.type != "cpu":
        return 1
    cores = min(available_cores(), _MOST_THREADS)
    if cores == 1:
        return 1  # and counts nothing, in each process of a sweep
    wanted = before if type(before) is int else 1 + work() // _WORK_OF_A_THREAD
    return max(1, min(wanted, cores))


@contextmanager
def one_thread() -> Iterator[None]:
    """While active, one thread computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """While active, new tensors are float32 unless told otherwise: an environment, or a program that uses a policy, may
    have set another default for the process."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _keep_freed_memory() -> None:
    """Lets the C library keep what an update frees for the next one.

    By default, where nothing else lies at the heap's end, it gives the intermediates of a population back to the system
    after every update and takes them again, page by page, in the next: a third of the time of 32 members' update.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return machine.free_memory()
