"""Environments of other packages that are known by name, and registered with Gymnasium once one of them is asked for.

Knowing them costs nothing: neither Gymnasium nor the package is imported before.
"""

from __future__ import annotations

import importlib.util
import re

_MINATAR = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
MINATAR_STEPS = 5_000
"""Where episodes of MinAtar are cut; the games have no limit, and who plays Breakout well may never end."""


def is_family_id(env_id: str) -> bool:
    """Whether the id is of a family; where its package is missing, whether it looks like one."""
    if env_id in _minatar_ids():
        return True
    return bool(re.fullmatch(r"ALE/\w+-v5", env_id)) and (not has_ale() or _registered(env_id))


def register_family(env_id: str) -> None:
    """Registers with Gymnasium what may be meant by `env_id`; nothing where the id is known already.

    Raises:
        ModuleNotFoundError: the package of an Atari game is not installed.
    """
    import gymnasium

    if env_id in gymnasium.registry:
        return
    for name, (game, minimal) in _minatar_ids().items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                "rltrain.envs.minatar:MinAtar",
                max_episode_steps=MINATAR_STEPS,
                kwargs={"game": game, "use_minimal_action_set": minimal},
            )
    if env_id.startswith("ALE/") or (has_ale() and env_id not in gymnasium.registry):
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it greets
        gymnasium.register_envs(ale_py)


def register_families() -> None:
    """All that there are."""
    register_family("")


def has_ale() -> bool:
    """Whether the package of the Atari games is installed."""
    return importlib.util.find_spec("ale_py") is not None


def _minatar_ids() -> dict[str, tuple[str, bool]]:
    """Id -> game, and whether only the actions that do something are there (v1) or all six (v0)."""
    return {f"MinAtar/{name}-v{version}": (game, version == 1) for name, game in _MINATAR.items() for version in (0, 1)}


def _registered(env_id: str) -> bool:
    import gymnasium

    register_family(env_id)
    return env_id in gymnasium.registry
