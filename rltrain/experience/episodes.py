"""Whole episodes, kept until an update has used them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.staging import StagingBuffers
from rltrain.experience.in_place import StepOf
from rltrain.types import ActionSpec, ObservationSpec, Transition

_FIRST_LENGTH = 64
_CPU = torch.device("cpu")


class EpisodeBatch(NamedTuple):
    """K whole episodes, padded to T steps, a power of two (so that few shapes occur)."""

    obs: Tensor  # [K, T, *obs]
    action: Tensor  # [K, T, *action]
    reward: Tensor  # [K, T], 0 in the padding
    mask: Tensor  # [K, T] float, 1 where a step was taken
    last: Tensor  # [K, T] float, 1 at each episode's last step
    final_obs: Tensor  # [K, *obs], what followed the last step
    truncated: Tensor  # [K] float, 1 where the episode was cut and final_obs still has a value


class Episodes(NamedTuple):
    """K episodes as they are stored; entries behind an episode's end have no meaning. Of a population [M, K, ...]."""

    obs: Tensor  # [K, T, *obs]
    action: Tensor  # [K, T, *action]
    reward: Tensor  # [K, T]
    final_obs: Tensor  # [K, *obs]
    truncated: Tensor  # [K] float
    length: Tensor  # [K] int64


class EpisodeMemory(NamedTuple):
    """The tensors of episodes that a program reads and writes: step t of episode k lies in row k * width + t. The last
    row of each is a spare one, for what is not to be kept."""

    obs: Tensor  # [M * K * width + 1, *obs]
    action: Tensor  # [M * K * width + 1, *action]
    reward: Tensor  # [M * K * width + 1]
    final_obs: Tensor  # [M * K + 1, *obs]
    truncated: Tensor  # [M * K + 1] float
    length: Tensor  # [M * K + 1] int64
    finished: Tensor  # [M * N] int64, episodes that each environment has finished


class EpisodeBuffer:
    """Exactly K = `episodes` episodes from N environments, K / N from each, all begun under the present parameters.

    Taking the first K that finish would favour short episodes; so each environment plays its share, and one that is
    done idles until the update. Memory grows with the longest episode, by doubling.

    The M members of a population play K episodes in N environments each; rows and environments lie member by member.
    """

    def __init__(
        self,
        episodes: int,
        num_envs: int,
        observation: ObservationSpec,
        action: ActionSpec,
        members: int = 1,
        device: torch.device = _CPU,
    ) -> None:
        """`device` is where a program may do what `add` does (`store`)."""
        self._share, self._members, self._device = episodes // num_envs, members, device
        self._episodes, self._num_envs = episodes, num_envs
        self._rows = rows = members * episodes
        self._counts = StagingBuffers(
            {"length": ((rows + 1,), torch.int64), "finished": ((members * num_envs,), torch.int64)}, device
        )
        self._forms = {
            "obs": (observation.shape, observation.dtype),
            "action": (action.shape, action.dtype),
            "reward": ((), "float32"),
        }
        self._host_final_obs = np.zeros((rows + 1, *observation.shape), observation.dtype)
        self._host_truncated = np.zeros(rows + 1, np.float32)
        self._final_obs, self._truncated = (
            torch.from_numpy(array).to(device) for array in (self._host_final_obs, self._host_truncated)
        )
        self._env_ids = np.arange(members * num_envs)
        # What follows from `finished`, until that changes: asked for in every vector step.
        self._active: np.ndarray | None = None
        self._full: np.ndarray | None = None
        self.width = 0
        self._steps: dict[str, Tensor] = {}
        self.widen(_FIRST_LENGTH)

    def widen(self, steps: int) -> None:
        """Makes room for episodes of `steps` steps, rounded up to a power of two; what is kept stays."""
        width = max(_FIRST_LENGTH, 1 << (steps - 1).bit_length())
        if width <= self.width:
            return
        old, old_width, self.width = self._steps, self.width, width
        host = {name: np.zeros((self._rows * width + 1, *shape), dtype) for name, (shape, dtype) in self._forms.items()}
        self._steps = {name: torch.from_numpy(array).to(self._device) for name, array in host.items()}
        for name, tensor in old.items():
            _by_episode(self._steps[name], width)[:, :old_width] = _by_episode(tensor, old_width)
        # On the CPU the same memory through NumPy: a step of few environments costs a tenth of torch's way.
        self._obs, self._action, self._reward = (a[:-1].reshape(-1, width, *a.shape[1:]) for a in host.values())

    @property
    def length(self) -> np.ndarray:
        """[M * K] int64, the steps of each episode so far."""
        return self._counts.host["length"][:-1]

    @property
    def finished(self) -> np.ndarray:
        """[M * N] int64, the episodes that each environment has finished."""
        return self._counts.host["finished"]

    @property
    def active(self) -> np.ndarray:
        """[M * N] bool: the environments that have not yet played their share. Not to be written into."""
        if self._active is None:
            self._active = self.has_yet_to_play(self.finished)
        return self._active

    def has_yet_to_play(self, finished: np.ndarray) -> np.ndarray:
        """bool, like `finished`: whether environments with these numbers of finished episodes have some of their share
        left."""
        left: np.ndarray = finished < self._share
        return left

    def most_steps(self, limit: int) -> int:
        """Vector steps that fill it at the latest, with episodes of at most `limit` steps."""
        active = self._env_ids[self.active]
        running = self.length[active * self._share + self.finished[active]]
        return int(((self._share - self.finished[active]) * limit - running).max(initial=0))

    @property
    def full(self) -> np.ndarray:
        """[M] bool: the members that have all their episodes. Not to be written into."""
        if self._full is None:
            self._full = (self.finished == self._share).reshape(self._members, -1).all(1)
        return self._full

    def _finished_changed(self) -> None:
        self._active = self._full = None

    @property
    def nbytes(self) -> int:
        """Bytes at present; they grow with the longest episode."""
        return sum(tensor[:-1].nbytes for tensor in self._steps.values())

    def padded_length(self, members: slice) -> int:
        """T: the power of two that holds the longest episode of these members."""
        return 1 << int(self.length.reshape(self._members, -1)[members].max() - 1).bit_length()

    def add(self, transition: Transition) -> None:
        """Keeps one vector step of the environments that are active."""
        length, finished = self.length, self.finished
        envs = self._env_ids[transition.active]
        rows = envs * self._share + finished[envs]  # [K']
        times = length[rows]
        if len(times) and times.max() == self.width:
            self.widen(self.width + 1)
        self._obs[rows, times] = transition.obs[envs]
        self._action[rows, times] = transition.action[envs]
        self._reward[rows, times] = transition.reward[envs]
        length[rows] += 1
        ended = (transition.terminated | transition.truncated)[envs]
        if ended.any():
            self._host_final_obs[rows[ended]] = transition.next_obs[envs[ended]]
            # The MDP's own end wins where both are reported.
            self._host_truncated[rows[ended]] = ~transition.terminated[envs[ended]]
            finished[envs[ended]] += 1
            self._finished_changed()

    @property
    def memory(self) -> EpisodeMemory:
        """The first argument of `playing` and `store`, on the device; the same tensors until it is widened."""
        counts = self._counts.on_device
        return EpisodeMemory(
            **self._steps, final_obs=self._final_obs, truncated=self._truncated,
            length=counts["length"], finished=counts["finished"],
        )  # fmt: skip

    def playing(self, memory: EpisodeMemory, running: Tensor) -> Tensor:
        """Which environments [L] of the members that run have not yet played their share. Part of the program."""
        return running & (memory.finished < self._share)

    def store(self, memory: EpisodeMemory, step: StepOf) -> None:
        """Writes one step of all environments. Part of the program."""
        first = torch.arange(len(memory.finished), device=memory.finished.device) * self._share  # [L]
        rows = torch.where(step.active, first + memory.finished, self._rows)
        places = torch.where(
            step.active, rows * self.width + memory.length.index_select(0, rows), self._rows * self.width
        )
        for array, column in ((memory.obs, step.obs), (memory.action, step.action), (memory.reward, step.reward)):
            array.index_copy_(0, places, column)
        memory.length.index_add_(0, rows, step.active.long())
        ended = torch.where(step.ended, rows, self._rows)
        memory.final_obs.index_copy_(0, ended, step.next_obs)
        memory.truncated.index_copy_(0, ended, (~step.terminated).to(memory.truncated.dtype))
        memory.finished.add_(step.ended)

    def send(self) -> None:
        """Sends the host's counters to the device."""
        self._counts.send()

    def fetch(self) -> None:
        """Fetches the device's counters; waits for them."""
        self._counts.fetch()
        self._finished_changed()

    def room(self, steps: int, members: int, device: torch.device) -> Episodes:
        """Memory for `copy`, for this number of members and episodes padded to `steps` steps."""
        return Episodes(*(torch.zeros_like(column, device=device) for column in self._columns(steps, slice(members))))

    def copy(self, into: Episodes, members: slice) -> None:
        """Copies the members' episodes; `into` has room for their padded length."""
        for there, here in zip(into, self._columns(into.reward.shape[-1], members), strict=True):
            there.copy_(here)  # waits: the buffer is written again while a device may still be reading

    def clear(self) -> None:
        """Begins anew, with no episodes."""
        self.length[:] = 0
        self.finished[:] = 0
        self._finished_changed()

    def _columns(self, steps: int, members: slice) -> Episodes:
        """Views of the members' episodes, [K, ...] of one member, else [M, K, ...]."""
        of_steps = (_by_episode(tensor, self.width)[:, :steps] for tensor in self._steps.values())
        columns = (*of_steps, self._final_obs[:-1], self._truncated[:-1], torch.from_numpy(self.length))
        by_member = [c.view(self._members, self._episodes, *c.shape[1:])[members] for c in columns]
        return Episodes(*(c.squeeze(0) if len(c) == 1 else c for c in by_member))

    def batches(self, memory: Episodes, uniform: Tensor) -> Iterator[tuple[Any, EpisodeBatch]]:
        """All episodes, for one update. Part of the program."""
        length = memory.length.unsqueeze(-1)  # [K, 1]
        time = torch.arange(memory.reward.shape[-1], device=length.device)
        mask = (time < length).to(memory.reward.dtype)  # [K, T]
        last = (time == length - 1).to(memory.reward.dtype)
        reward = memory.reward * mask
        yield (), EpisodeBatch(memory.obs, memory.action, reward, mask, last, memory.final_obs, memory.truncated)

    def feedback(self, memory: Episodes, rows: Any, feedback: Mapping[str, Tensor]) -> None:
        """Does nothing: all episodes count alike."""

    def forget(self, envs: np.ndarray) -> None:
        """Drops the running episodes of `envs` (bool [N]); they begin anew."""
        running = self._env_ids[envs & self.active]
        self.length[running * self._share + self.finished[running]] = 0

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        """Copies of what the member has."""
        return {name: tensor.clone() for name, tensor in self._parts(member).items()}

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        width = state["reward"].shape[1]
        self.widen(width)
        for name, tensor in self._parts(member).items():
            into = tensor[:, :width] if name in self._steps else tensor
            into.copy_(state[name])
        self._finished_changed()

    def _parts(self, member: int) -> dict[str, Tensor]:
        """Views of the member's rows."""
        rows = slice(member * self._episodes, (member + 1) * self._episodes)
        envs = slice(member * self._num_envs, (member + 1) * self._num_envs)
        of_steps = {name: _by_episode(tensor, self.width)[rows] for name, tensor in self._steps.items()}
        return {
            **of_steps,
            "final_obs": self._final_obs[rows],
            "truncated": self._truncated[rows],
            "length": torch.from_numpy(self.length[rows]),
            "finished": torch.from_numpy(self.finished[envs]),
        }


def _by_episode(tensor: Tensor, width: int) -> Tensor:
    """[K * width + 1, ...] -> [K, width, ...], a view without the spare row."""
    return tensor[:-1].view(-1, width, *tensor.shape[1:])
