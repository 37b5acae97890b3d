"""The games of MinAtar (Young & Tian, 2019), so that an episode depends on its seed and actions alone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from minatar.gym import BaseEnv

_SIDE = 24  # screen pixels of one of the 10 x 10


class MinAtar(BaseEnv):  # type: ignore[misc]
    """A game with observations of bool [10, 10, C]: for each kind of object, where one is."""

    metadata: ClassVar[dict[str, Any]] = {**BaseEnv.metadata, "render_fps": 10}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Starts an episode. The game itself keeps its last action, which a sticky first step would repeat."""
        self.game.last_action = 0
        obs, info = super().reset(seed=seed, options=options)
        return obs, info

    def render(self) -> Any:
        """`rgb_array`: uint8 [240, 240, 3]; the game's own are floats of its 10 x 10 fields."""
        picture = super().render()
        if self.render_mode != "rgb_array":
            return picture
        return np.kron((255 * picture).astype(np.uint8), np.ones((_SIDE, _SIDE, 1), np.uint8))
