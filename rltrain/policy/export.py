"""The greedy policy as a program of `torch.export`: a file that acts without rltrain."""

from __future__ import annotations

import io
import json
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.config.plain import to_plain
from rltrain.envs.space_data import space_to_plain
from rltrain.envs.spaces import ObservationWriter, action_limits, action_spec
from rltrain.errors import RequestError
from rltrain.policy.load import TrainedPolicy
from rltrain.storage.plain_files import write_file


@dataclass(frozen=True)
class Exported:
    """The exported file, with what goes in and comes out, such as `float32 [batch, 4]`. `look_back`: the wrappers that
    it leaves to its caller; it takes the observations that they return. `of_parts`: its caller makes one vector of the
    environment's observation too."""

    path: Path
    observation: str
    action: str
    look_back: tuple[str, ...]
    of_parts: bool


class EnvPolicy(nn.Module):
    """From observations as the environment gives them to actions as it takes them, for any number of environments.
    Where some of `env.wrappers` look back at earlier observations, it takes those that they return."""

    scale: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policy: TrainedPolicy, greedy: nn.Module) -> None:
        super().__init__()
        self.greedy = greedy
        obs: Any = policy.observation_space
        action: Any = policy.action_space
        self.look_back, self.spec, steps = policy.fixed()
        self._first_obs = int(obs.start) if self.spec.kind == "discrete" else 0
        self._steps = [kind for kind, *_ in steps]
        for number, (_, *arrays) in enumerate(steps):
            for name, array in zip("ab", arrays, strict=True):
                self.register_buffer(f"wrapper_{number}_{name}", torch.from_numpy(array.copy()))
        self._first_action, self._action_dtype = 0, torch.int64
        self._is_discrete = action_spec(action).kind == "discrete"
        if self._is_discrete:
            self._first_action = int(action.start)
        else:
            self._action_dtype = getattr(torch, str(action.dtype))
            for name, values in zip(("scale", "centre", "low", "high"), action_limits(action), strict=True):
                self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float64).copy()))

    def forward(self, obs: Tensor) -> Tensor:
        """obs [B, *obs] -> actions [B, *action]."""
        obs = obs - self._first_obs if self._first_obs else obs
        for number, kind in enumerate(self._steps):
            a, b = self.get_buffer(f"wrapper_{number}_a"), self.get_buffer(f"wrapper_{number}_b")
            obs = ((obs.to(a.dtype) - a) / b).to(torch.float32) if kind == "normalize" else torch.clamp(obs, a, b)
        action: Tensor = self.greedy(obs.to(torch.float32) if obs.dtype == torch.float64 else obs)
        if self._is_discrete:
            return action + self._first_action
        wanted = action.to(torch.float64) * self.scale + self.centre
        return torch.minimum(torch.maximum(wanted, self.low), self.high).to(self._action_dtype)


def export_policy(policy: TrainedPolicy, path: Path) -> Exported:
    """Writes the policy to `path`, replacing what was there.

    The batch is the only dimension that is free. Beside the program the file holds `rltrain.json`: the spaces, the
    environment's id, the step.

    Raises:
        RequestError: the algorithm's policy has no `greedy_module`, or cannot be traced; or a wrapper that comes before
            one that looks back cannot be done after it.
        RunFailed: the file cannot be written.
    """
    make_module = getattr(policy.agent_policy, "greedy_module", None)
    if make_module is None:
        raise RequestError(f"algo={policy.config.algo.name}: its policy has no greedy_module, which exporting needs")
    module = EnvPolicy(policy, make_module()).eval()
    spec = module.spec
    example = torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype))
    if spec.kind == "discrete":
        example += module._first_obs
    data = _program(module, example, policy)
    write_file(path, data)
    with torch.no_grad():
        action = module(example)
    look_back = tuple(wrapper.name for wrapper in module.look_back)
    of_parts = ObservationWriter(policy.observation_space).flattens
    return Exported(path, _in_words(example), _in_words(action), look_back, of_parts)


def _program(module: EnvPolicy, example: Tensor, policy: TrainedPolicy) -> bytes:
    about = {
        "env": policy.config.env.id,
        "algo": policy.config.algo.name,
        "env_step": policy.env_step,
        "observation_space": space_to_plain(policy.observation_space),
        "action_space": space_to_plain(policy.action_space),
        "wrappers": to_plain(policy.config)["env"]["wrappers"],
        "takes_after": [asdict(config) for config in module.look_back],
    }
    buffer = io.BytesIO()
    level = logging.getLogger("torch.export").level
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about the inner workings of the exporter
            batch: Any = torch.export.Dim("batch")
            program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
            torch.export.save(program, buffer, extra_files={"rltrain.json": json.dumps(about)})
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"algo={policy.config.algo.name}: its network cannot be exported: {reason}") from error
    finally:
        logging.getLogger("torch.export").setLevel(level)
    return buffer.getvalue()


def _in_words(batch: Tensor) -> str:
    shape = ", ".join(["batch", *map(str, batch.shape[1:])])
    return f"{str(batch.dtype).removeprefix('torch.')} [{shape}]"
