"""Base of the engine's agents: networks, optimizer state and acting of all members, checkpoints, retiring a member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.compute.device import one_thread
from rltrain.config.schema import PerEpisodeConfig
from rltrain.engine.algorithm import DURATION, NETWORK_NOISE, Algorithm, State
from rltrain.engine.diagnostics import distance, dormant_share
from rltrain.engine.members import MemberNetworks, member_of, stack_members
from rltrain.engine.policy import GreedyPolicy
from rltrain.engine.protocol import AgentContext, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.engine.stepper import Stepper
from rltrain.engine.stepping import Store
from rltrain.engine.turns import KeptState
from rltrain.maths.persistence import HeldActions
from rltrain.seeding import RandomBlocks
from rltrain.types import Episode


class EngineAgent(GreedyPolicy):
    """Networks, state and acting of all members; subclasses keep experience and decide when updates are due."""

    _store: Store  # where vector steps on the device put their transitions
    _depth: int  # vector steps of a block, at most
    _knobs: dict[str, Tensor]  # each [] or [M]

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        super().__init__(algorithms, context)
        self._context, algorithm, run = context, self._algorithm, context.config
        self._members, self._num_envs = len(algorithms), run.num_envs
        self._iterates = run.env.vectorization == "compiled"
        self._running = np.ones(self._members, dtype=bool)
        self._active = np.ones(self._members * self._num_envs, dtype=bool)  # of members that run
        params = {name: networks.params for name, networks in self.networks.items()}
        for target, own in algorithm.follows.items():
            params[target] = params[own].clone()  # [P], theta^-; of a population [M, P]
        self._state = State(params, stack_members([a.init_optimizer() for a in algorithms]))  # changes in place
        self._retired: KeptState | None = None
        purpose, kind, self._noise_size = algorithm.noise
        self._seeds = [config.seed for config in context.configs]
        self._acting_noise = RandomBlocks(self._seeds, purpose, kind)
        self._network_noise: RandomBlocks | None = None
        if self._acting.noise_size:
            self._network_noise = RandomBlocks(self._seeds, "acting_noise", "normal")
        # Each [M].
        self._env_steps, self._episodes, self._gradient_steps = (np.zeros(self._members, np.int64) for _ in range(3))
        self._learned_from = np.zeros(self._members, np.int64)
        self._num_actions = context.action.n
        self._gammas = np.array([getattr(config.algo, "gamma", np.nan) for config in context.configs])  # [M]
        self._held = HeldActions(self._members * self._num_envs) if DURATION in algorithm.schedules else None
        # Epsilon then depends on the ends of episodes, so that a block is one vector step long.
        self._follows_episodes = any(isinstance(c.exploration, PerEpisodeConfig) for c in context.configs)
        self._compile_from, self._compiler = context.compile_from, context.compiler
        self._compiles = context.compile_update  # until the switch to compiled programs at step `_compile_from`
        self._stepper: Stepper | None = None

    def _stack_knobs(self, further: Sequence[Mapping[str, float]] | None = None) -> dict[str, Tensor]:
        """The algorithm's knobs, and `further` ones of each member, as tensors."""
        of_members = []
        for algorithm, more in zip(self._algorithms, further or [{}] * self._members, strict=True):
            knobs = {**algorithm.knobs, **more}
            of_members.append({name: torch.tensor(number, device=self._device) for name, number in knobs.items()})
        return stack_members(of_members)

    @property
    def _steps_before_update(self) -> np.ndarray:
        """[M], the environment steps before those that the next update learns from."""
        raise NotImplementedError

    @property
    def _steps_before_last_update(self) -> np.ndarray:
        """[M], the same of the last update, or of the first where none has been."""
        return self._learned_from

    def _annealed(self, steps_before: np.ndarray, members: slice = slice(None)) -> dict[str, np.ndarray]:
        """The knobs that fall, each [M, K], in K updates of `members`, from their `_steps_before_update` [M, K]."""
        own = list(zip(self._algorithms[members], steps_before, strict=True))
        return {name: np.array([a.knobs[name] * a.anneals[name](steps, 0) for a, steps in own])
                for name in self._algorithm.anneals}  # fmt: skip

    def _anneal(self) -> None:
        """Sets the annealed hyperparameters (learning rates) for the coming update."""
        steps_before = self._steps_before_update
        for name, numbers in self._annealed(steps_before[:, None]).items():
            self._knobs[name].copy_(torch.from_numpy(numbers).view_as(self._knobs[name]))
        self._learned_from = np.where(self._running, steps_before, self._learned_from)

    @property
    def env_steps(self) -> int:
        """Made so far, by the member that has made most: where all move together, by each that runs."""
        return int(self._env_steps.max())

    @property
    def gradient_steps(self) -> int:
        return int(self._gradient_steps.max())

    @property
    def active(self) -> np.ndarray:
        return self._active

    @property
    def waiting(self) -> np.ndarray:
        return np.zeros(self._members, dtype=bool)

    @property
    def num_parameters(self) -> dict[str, int]:
        return {name: self.networks[name].params.shape[-1] for name in self._algorithm.learns}

    def _stepper_of(self, envs: SteppedByAgent) -> Stepper:
        """Steps these environments on the device, for `env.vectorization=compiled`."""
        if self._stepper is None:
            self._stepper = Stepper(self._context, self._algorithm, self._acting, self._store, envs, self._depth)
        return self._stepper

    def _programs(self) -> Iterator[Bound]:
        """The programs that are compiled beside the run, as far as they have been made."""
        raise NotImplementedError

    def make_programs(self, envs: SteppedByAgent | None) -> None:
        """Compiles all of them, for another process that finds them on disk; `envs` where it steps them itself."""
        if envs is None:
            observation = self._context.observation
            obs = np.zeros((self._members * self._num_envs, *observation.shape), observation.dtype)
            noise = np.zeros((self._members, self._acting.noise_size), np.float32)
            self._acting.compile()
            self._acting.act(obs, *([noise] if self._network_noise is not None else []))
        else:
            self._stepper_of(envs)
        for program in self._programs():
            program.make_program()

    def _use_programs(self, step: int) -> None:
        """Switches to compiled programs at the environment step that was fixed for it; until then they are compiled."""
        if not self._compiles:
            return
        if step < self._compile_from:
            self._compile_beside(step)
            return
        if self._compiler is not None:
            self._compiler.wait()
        self._compiles = False
        for program in self._programs():
            program.compile()
        self._acting.compile()

    def _compile_beside(self, step: int) -> None:
        if self._compiler is not None:
            self._compiler.start(step / self._compile_from)

    def _until_programs(self, steps: int, step: int) -> int:
        """`steps`, or fewer where the compiled programs begin before: a block of vector steps ends there. `step` is the
        environment step at which it begins."""
        return min(steps, -(-(self._compile_from - step) // self._num_envs)) if self._compiles else steps

    def act(self, obs: np.ndarray) -> np.ndarray:
        drawn = {name: draws[0] for name, draws in self._draw(1).items()}
        noise = [drawn.pop(NETWORK_NOISE)] if self._network_noise is not None else []  # [M, E]
        action = self._algorithm.choose_blindly(drawn)
        if action is None:
            # The one wait for the device per step: the environments need the actions.
            output = self._acting.act(obs, *noise).cpu().numpy()  # [M * N, outputs]
            with one_thread():  # so few rows wake several for nothing
                action = self._algorithm.choose(np, output, drawn)
        return action

    def _draw(self, steps: int) -> dict[str, np.ndarray]:
        """The acting draws of the next vector steps, in which no episode changes what is scheduled, each
        [steps, M * N, ...], and of a noisy network NETWORK_NOISE [steps, M, E]."""
        count = self._noise_size * self._num_envs
        noise = self._acting_noise.take(count * steps, self._drawing()).reshape(self._members, steps, count)
        drawn = self._algorithm.draw(noise.swapaxes(0, 1), self._scheduled(steps))
        drawn = {name: draws.reshape(steps, -1, *draws.shape[3:]) for name, draws in drawn.items()}
        if self._held is not None:
            self._held.hold(drawn["explore"], drawn["random_action"], drawn.pop(DURATION))
        if self._network_noise is not None:
            size = self._acting.noise_size
            noise = self._network_noise.take(size * steps, self._drawing()).reshape(self._members, steps, size)
            drawn[NETWORK_NOISE] = noise.swapaxes(0, 1).astype(np.float32)
        return drawn

    def _drawing(self) -> list[int] | None:
        """The members that draw for the next step; None for all."""
        return None

    def _scheduled(self, steps: int) -> dict[str, np.ndarray]:
        """The numbers of `Algorithm.schedules` in the next vector steps, each [steps, M, 1]."""
        ahead = np.arange(0, steps * self._num_envs, self._num_envs)  # [steps]
        return {name: self._numbers(name, ahead) for name in self._algorithm.schedules}

    def _numbers(self, name: str, ahead: np.ndarray) -> np.ndarray:
        """A scheduled number at the environment steps `ahead` [steps] of now: [steps, M, 1]."""
        numbers = np.empty((len(ahead), self._members, 1))
        for member, algorithm in enumerate(self._algorithms):
            schedule = algorithm.schedules[name]
            numbers[:, member, 0] = schedule(self._env_steps[member] + ahead, int(self._episodes[member]))
        return numbers

    def _count_episodes(self, episodes: list[Episode]) -> None:
        for episode in episodes:
            self._episodes[episode.env // self._num_envs] += 1

    def _count_gradient_steps(self, count: int | np.ndarray) -> None:
        self._gradient_steps += count * self._running
        if self._retired is not None:
            self._retired.restore()

    def retire(self, member: int) -> None:
        self._running[member] = self._active[self._envs_of(member)] = False
        if self._members > 1:
            self._retired = KeptState(self._state, ~self._running)

    def scalars(self, member: int = 0) -> dict[str, float]:
        algorithm, own = self._algorithms[member], slice(member, member + 1)
        counts = int(self._env_steps[member]), int(self._episodes[member])
        annealed = self._annealed(self._steps_before_last_update[own, None], own)
        return {
            **{f"train/{name}": float(schedule(*counts)) for name, schedule in algorithm.schedules.items()},
            "train/learning_rate": annealed["lr"].item() if "lr" in annealed else algorithm.knobs["lr"],
            "train/gradient_steps": float(self._gradient_steps[member]),
        }

    @property
    def gammas(self) -> np.ndarray:
        return self._gammas

    def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
        if self._algorithm.critic is None:
            return np.full(len(obs), np.nan)
        critic = self.networks[self._algorithm.critic]
        with torch.inference_mode():
            # Cloned, so that the weights of all members are aligned alike: how BLAS rounds depends on it.
            params = critic.of_member(critic.params, member).clone()
            output = critic.apply(params, torch.from_numpy(obs).to(self._device))
            values: np.ndarray = self._algorithm.state_value(output).double().cpu().numpy()
        return values

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        found: dict[str, float] = {}
        acts = self.networks[self._algorithm.acts]
        with torch.inference_mode():
            own = acts.of_member(acts.params, member).clone()  # as above
            if layers := acts.activations(own, torch.from_numpy(obs).to(self._device)):
                found["diagnostics/dormant_units"] = dormant_share(layers)
            for target, name in self._algorithm.follows.items():
                of_member, params = self.networks[name].of_member, self._state.networks
                both = (of_member(params[which], member) for which in (name, target))
                found["diagnostics/target_distance"] = distance(*both)
        return found

    def _envs_of(self, member: int) -> slice:
        return slice(member * self._num_envs, (member + 1) * self._num_envs)

    def _structure(self, name: str) -> MemberNetworks:
        """The networks that parameters called `name` are of; a target network's are those that it follows."""
        return self.networks[self._algorithm.follows.get(name, name)]

    def state_dict(self, member: int = 0) -> StateDict:
        network: dict[str, Tensor] = {}
        for name, params in self._state.networks.items():
            network |= with_prefix(name, self._structure(name).state_dict(member, params))
        return {"network": network, "optimizer": member_of(self._state.optimizer, member, self._members)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        for name, params in self._state.networks.items():
            self._structure(name).load_state_dict(without_prefix(name, state["network"]), member, params)
        own = member_of(self._state.optimizer, member, self._members)
        for name, tensor in state["optimizer"].items():
            own[name].copy_(tensor)

    def _acting_state(self, member: int) -> dict[str, Any]:
        """The random actions that a member's environments hold, where they do, and where noise has come to."""
        held = {} if self._held is None else {"held_actions": self._held.state_dict(self._envs_of(member))}
        noise = self._network_noise
        return held if noise is None else {**held, "network_noise": noise[member].state_dict()}

    def _load_acting(self, plain: Mapping[str, Any], member: int) -> None:
        if self._network_noise is not None:
            self._network_noise[member].load_state_dict(plain["network_noise"])
        if self._held is not None:
            self._held.load_state_dict(plain["held_actions"], self._envs_of(member), self._num_actions)

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        for name, networks in self.networks.items():
            networks.load_state_dict(without_prefix(name, network), member)
        for target, own in self._algorithm.follows.items():
            of_member = self.networks[own].of_member
            of_member(self._state.networks[target], member).copy_(of_member(self._state.networks[own], member))
