"""Environments as pure functions of arrays, for many lanes at once: `env.vectorization=batched`.

`BATCHED_ENVS` names the twin of each Gymnasium id; a plug-in adds its own. Torch-free, as all of `envs/`.
"""

from __future__ import annotations

from rltrain.envs.batched.acrobot import Acrobot
from rltrain.envs.batched.cartpole import CartPole
from rltrain.envs.batched.minatar.asterix import Asterix
from rltrain.envs.batched.minatar.breakout import Breakout
from rltrain.envs.batched.minatar.freeway import Freeway
from rltrain.envs.batched.minatar.seaquest import Seaquest
from rltrain.envs.batched.minatar.space_invaders import SpaceInvaders
from rltrain.envs.batched.mountain_car import MountainCar
from rltrain.envs.batched.pendulum import Pendulum

_MINATAR = {
    "Asterix": Asterix,
    "Breakout": Breakout,
    "Freeway": Freeway,
    "Seaquest": Seaquest,
    "SpaceInvaders": SpaceInvaders,
}

BATCHED_ENVS: dict[str, type] = {
    "Acrobot-v1": Acrobot,
    "CartPole-v0": CartPole,
    "CartPole-v1": CartPole,
    "MountainCar-v0": MountainCar,
    "Pendulum-v1": Pendulum,
    **{f"MinAtar/{name}-v{version}": game for name, game in _MINATAR.items() for version in (0, 1)},
}
"""Gymnasium id -> twin, which has the methods of `BatchedEnvironment`."""
