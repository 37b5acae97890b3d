"""The wrappers of a run, one over the other: the first that is listed is next to the environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rltrain.envs.lane_group import LaneStep
from rltrain.envs.precision import Precision
from rltrain.envs.wrappers.computed import Computed, Kept
from rltrain.envs.wrappers.wrapper import Fixed, Wrapper, WrapperContext, refuse
from rltrain.errors import CheckpointError
from rltrain.types import ObservationSpec

SHOWN = "wrapped_obs"
_STATISTICS, _MEMORY = "statistics", "memory"


class WrapperStack:
    """Passes what the environments do through all wrappers, and makes float32 of what is float64 after them.

    Attributes:
        spec: of the observations that come out.
        whole_spec: the same before float64 becomes float32.
        frozen: whether this is an evaluation, in which nothing is told that was told in training.
    """

    def __init__(self, named: Sequence[tuple[str, Wrapper]], spec: ObservationSpec, context: WrapperContext) -> None:
        names = [name for name, _ in named]
        # Two of one name are told apart by number, from 2 on.
        numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
        self._named = {f"{n}_{k}" if k > 1 else n: w for (n, w), k in zip(named, numbers, strict=True)}
        self._wrappers = [wrapper for _, wrapper in named]
        self._raw = spec
        self.whole_spec = self._wrappers[-1].spec if named else spec
        self._cuts = self.whole_spec.dtype == "float64"
        self.spec = replace(self.whole_spec, dtype="float32") if self._cuts else self.whole_spec
        self.frozen = context.frozen
        self._precision = Precision() if self._cuts and not context.frozen else None
        self._id, self._members, self._num_envs = context.id, context.members, context.num_envs
        self._all = np.ones(context.lanes, np.bool_)
        self._shown = np.empty(0)
        self._notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.listed or self._cuts

    @property
    def listed(self) -> bool:
        """Whether there is more to do than to cut numbers to float32."""
        return bool(self._wrappers)

    @property
    def remembers(self) -> bool:
        """Whether an observation is shown differently according to those before it."""
        return any(wrapper.remembers for wrapper in self._wrappers)

    def fixed(self) -> tuple[list[int], list[Fixed]]:
        """Their effect on the observations of a single run, in two parts: the positions in `env.wrappers` of those that
        look at more than one observation, or do what has no form as `Fixed`; and what comes after these, one after the
        other, for all the others.

        Raises:
            RequestError: one of the latter cannot be moved behind one of the former.
        """
        positions: list[int] = []
        steps: list[tuple[str, Fixed]] = []
        for position, (name, wrapper) in enumerate(self._named.items()):
            if (step := wrapper.fixed()) is not None:
                steps.append((name, step))
            elif wrapper.changes_observations:
                positions.append(position)
                steps = [(earlier, self._behind(wrapper, name, earlier, step)) for earlier, step in steps]
        return positions, [step for _, step in steps]

    def reset(self, obs: np.ndarray) -> np.ndarray:
        """obs [L, *obs], the first of all episodes -> as the agent sees them."""
        self._shown = self._begin(obs, self._all)
        return self._shown

    def follow(self, obs: np.ndarray) -> np.ndarray:
        """obs [L, *obs] of the next step of all lanes -> as the agent sees them."""
        self._shown = self._step(obs, self._all)
        return self._shown

    def step(self, done: LaneStep, active: np.ndarray | None) -> LaneStep:
        """Turns a step of the lanes into one to learn from; the rows of idle lanes stay as they were shown."""
        lanes = self._all if active is None else active
        reward = done.reward
        for wrapper in self._wrappers:
            reward = wrapper.reward(reward, lanes)
        next_obs = obs = self._step(done.next_obs, lanes)
        if done.finished or active is not None:
            obs = next_obs.copy()
        if done.finished:
            begun = np.zeros_like(self._all)
            begun[[ending.lane for ending in done.finished]] = True
            obs[begun] = self._begin(done.obs, begun)[begun]
        if active is not None:
            obs[~active] = self._shown[~active]
        self._shown = obs
        notes, self._notes = done.notes + self._notes, ()
        return LaneStep(obs, next_obs, reward, done.terminated, done.truncated, done.finished, notes)

    def kept(self) -> dict[str, np.ndarray]:
        """All that `begun`, `stepped` and `rewarded` need; not to be written into."""
        return {f"{name}.{key}": array for name, wrapper in self._computed() for key, array in wrapper.kept.items()}

    def adopt(self, kept: Mapping[str, np.ndarray], shown: np.ndarray) -> None:
        """Takes what `kept` has become elsewhere, and the observations [L, *obs] that were shown last."""
        for name, wrapper in self._computed():
            wrapper.kept = {key: kept[f"{name}.{key}"].copy() for key in wrapper.kept}
        self._shown = shown

    def begun(self, xp: Any, kept: Mapping[str, Any], obs: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]:
        """As `Computed.begun`, through all of them."""
        return self._through(lambda wrapper: wrapper.begun, xp, kept, obs, lanes)

    def stepped(self, xp: Any, kept: Mapping[str, Any], obs: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]:
        """As `Computed.stepped`, through all of them."""
        return self._through(lambda wrapper: wrapper.stepped, xp, kept, obs, lanes)

    def rewarded(self, xp: Any, kept: Mapping[str, Any], reward: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]:
        """As `Computed.rewarded`, through all of them."""
        return self._through(lambda wrapper: wrapper.rewarded, xp, kept, reward, lanes)

    def _computed(self) -> list[tuple[str, Computed]]:
        return [(name, wrapper) for name, wrapper in self._named.items() if isinstance(wrapper, Computed)]

    def _through(
        self,
        form: Callable[[Computed], Callable[..., tuple[Any, Kept]]],
        xp: Any,
        kept: Mapping[str, Any],
        x: Any,
        lanes: Any,
    ) -> tuple[Any, Mapping[str, Any]]:
        after = dict(kept)
        for name, wrapper in self._computed():
            x, own = form(wrapper)(xp, {key: after[f"{name}.{key}"] for key in wrapper.kept}, x, lanes)
            after.update({f"{name}.{key}": array for key, array in own.items()})
        return x, after

    def state(self, lanes: slice) -> dict[str, np.ndarray]:
        """All that a continued run needs of `lanes`, which are those of whole members."""
        if not self._wrappers:
            return {}
        first, end, _ = lanes.indices(len(self._all))
        members = slice(first // self._num_envs, -(-end // self._num_envs))
        return {
            SHOWN: self._shown[lanes].copy(),
            **{key: array[members].copy() for key, array in self._arrays(_STATISTICS).items()},
            **{key: array[lanes].copy() for key, array in self._arrays(_MEMORY).items()},
        }

    def statistics(self) -> dict[str, np.ndarray]:
        """Copies of the running statistics of all members, [M, ...] by name."""
        return {key: array.copy() for key, array in self._arrays(_STATISTICS).items()}

    def load_statistics(self, state: Mapping[str, Any], member: int | None = None) -> None:
        """Takes the running statistics over that `statistics` gave.

        Args:
            member: for whom, where they are those of a single run; None: of all members.

        Raises:
            CheckpointError: they are not of these wrappers.
        """
        own = self.statistics()
        for key, array in own.items():
            part = slice(None) if member is None else slice(member, member + 1)
            array[part] = self._checked(state, key, array[part])
        for name, wrapper in self._named.items():
            if found := _of(own, _STATISTICS, name):
                wrapper.load(found)

    def restore(
        self, state: Mapping[str, Any], obs: np.ndarray, lengths: Sequence[int], exact: Sequence[bool]
    ) -> np.ndarray:
        """Takes `state` over, after the environments took their episodes up again.

        Args:
            obs: [L, *obs] that the environments show now.
            lengths: [L] steps of the running episodes, as stored.
            exact: [L] where they go on; elsewhere an episode begins with `obs`.

        Returns:
            obs [L, *obs] as the agent sees them.

        Raises:
            CheckpointError: the state is of other wrappers.
        """
        if not self._wrappers:
            self._shown = self._begin(obs, self._all)
            return self._shown
        arrays = {**self._arrays(_STATISTICS), **self._arrays(_MEMORY)}
        found = {key: self._checked(state, key, array) for key, array in arrays.items()}
        goes_on = np.array(exact)
        kept = np.where(goes_on, np.array(lengths), 0)
        for name, wrapper in self._named.items():
            wrapper.load({**_of(found, _STATISTICS, name), **_of(found, _MEMORY, name)}, kept)
        expected = np.empty((len(self._all), *self.spec.shape), self.spec.dtype)
        shown = self._checked(state, SHOWN, expected).copy()
        if not goes_on.all():
            shown[~goes_on] = self._begin(obs, ~goes_on)[~goes_on]
        self._shown = shown
        return shown

    def _behind(self, wrapper: Wrapper, name: str, earlier: str, step: Fixed) -> Fixed:
        if (moved := wrapper.commuted(step, self._raw)) is None:
            raise refuse(earlier, f"before {name} cannot be done after it, which exporting needs")
        return moved

    def _begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        for wrapper in self._wrappers:
            obs = wrapper.begin(obs, lanes)
        if self._precision is not None and lanes[0]:
            self._precision.begin()
        return self._cut(obs, lanes) if self._cuts else obs

    def _step(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        for wrapper in self._wrappers:
            obs = wrapper.step(obs, lanes)
        return self._cut(obs, lanes) if self._cuts else obs

    def _cut(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """float64 obs [L, *obs] -> float32; tells where that loses what the numbers of the first lane differ in."""
        precision = self._precision
        if precision is not None and lanes[0] and precision.wants() and (lost := precision.see(obs[0])):
            why = f"{self._id}: {lost}, in which the network computes"
            self._notes += (f"{why}: env.wrappers=[normalize_observation] normalizes in float64 before",)
        return obs.astype(np.float32)

    def _arrays(self, what: str) -> dict[str, np.ndarray]:
        return {
            f"{what}.{name}.{key}": array
            for name, wrapper in self._named.items()
            for key, array in (wrapper.statistics() if what == _STATISTICS else wrapper.memory()).items()
        }

    def _checked(self, state: Mapping[str, Any], key: str, like: np.ndarray) -> np.ndarray:
        found = state.get(key)
        kept_cut = key.startswith(_MEMORY) and like.dtype == np.float64
        if kept_cut and isinstance(found, np.ndarray) and found.dtype == np.float32:
            found = found.astype(np.float64)  # until float64 reached the wrappers, they remembered float32
        if not isinstance(found, np.ndarray) or found.shape != like.shape or found.dtype != like.dtype:
            what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "missing"
            raise CheckpointError(f"{self._id}: the stored {key} is {what}, expected {like.dtype} {like.shape}")
        sums = key.startswith(_STATISTICS) and not key.endswith(".mean")
        if found.dtype.kind == "f" and not (np.isfinite(found).all() and (not sums or (found >= 0).all())):
            raise CheckpointError(f"{self._id}: the stored {key} holds what no run can have written")
        return found


def statistics_in(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The running statistics in a checkpoint's state of environments.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError("its state of environments is no mapping")
    return {key: array for key, array in state.items() if key.startswith(f"{_STATISTICS}.")}


def _of(arrays: Mapping[str, np.ndarray], what: str, name: str) -> dict[str, np.ndarray]:
    start = f"{what}.{name}."
    return {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}
