"""Environments of other packages that are known by name, and registered with Gymnasium once one of them is asked for.

Knowing them costs nothing: neither Gymnasium nor the package is imported before.
"""

from __future__ import annotations

import importlib.util
import re

from rltrain.errors import RequestError, one_line

_MINATAR = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
_MUJOCO = "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|Inverted(Double)?Pendulum|Pusher|Reacher|Swimmer|Walker2d"
MINATAR_STEPS = 5_000
"""Where episodes of MinAtar are cut; the games have no limit, and who plays Breakout well may never end."""


def namespace_of(env: str) -> str:
    """`ALE` of `module:ALE/Pong-v5`, and of an Atari game's older id; nothing of other ids without one."""
    name = env.rpartition(":")[2]
    return "ALE" if re.fullmatch(r"\w+NoFrameskip-v\d", name) else name.rpartition("/")[0]


def family_of(env: str) -> str:
    """The environments that share a tuned file: those of a namespace, or Gymnasium's of MuJoCo; nothing of others."""
    return "MuJoCo" if re.fullmatch(rf"({_MUJOCO})-v[45]", env) else namespace_of(env)


def is_family_id(env_id: str) -> bool:
    """Whether the id is of a family; where its package is missing, whether it looks like one."""
    if env_id in _minatar_ids():
        return True
    return bool(re.fullmatch(r"ALE/\w+-v5", env_id)) and (not has_ale() or _registered(env_id))


def atari_game(env_id: str) -> str | None:
    """The id under which an Atari game has settings, of one under which ale-py registers it too: `Breakout-v4`, whose
    frames are skipped at random."""
    found = re.fullmatch(r"(\w+)-v[04]", env_id)
    game = f"ALE/{found[1]}-v5" if found else ""
    return game if game and has_ale() and _registered(game) else None


def is_older_atari(env_id: str) -> bool:
    """Whether the id is one of those that Atari games had before they were `ALE/<Game>-v5`."""
    return atari_game(env_id.replace("NoFrameskip-", "-")) is not None


def register_family(env_id: str) -> None:
    """Registers with Gymnasium what may be meant by `env_id`; nothing where the id is known already.

    Raises:
        ModuleNotFoundError: the package of an Atari game is not installed.
        RequestError: it is installed and cannot be imported.
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
    asked = env_id.startswith("ALE/")
    if (asked or (has_ale() and env_id not in gymnasium.registry)) and (fault := _register_games()) and asked:
        raise RequestError(f"env={env_id}: {fault}")


def register_families() -> str:
    """Registers the environments of all installed packages; returns why Atari games are missing where ale-py is one of
    them."""
    register_family("")
    return _register_games() if has_ale() else ""


def _register_games() -> str:
    """Registers the Atari games; returns why that cannot be done.

    Raises:
        ModuleNotFoundError: they are not installed.
    """
    try:
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it greets
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "ale_py":
            raise
        return f"ale_py is installed and cannot be imported: {one_line(error, 160)}"
    return ""


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
