"""Networks by name. A new one: a module of (config, observation spec, outputs) and a line in NETWORKS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rltrain.config.schema import AnyNetworkConfig, CNNConfig, DuelingConfig
from rltrain.errors import RequestError
from rltrain.networks.cnn import CNN
from rltrain.networks.dueling import Dueling
from rltrain.networks.flat import FlatNetwork
from rltrain.networks.mlp import MLP
from rltrain.networks.noisy import add_deviations
from rltrain.networks.requirements import called, check_plugin, check_together
from rltrain.networks.state_action import StateAction
from rltrain.types import ObservationSpec

NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN, "dueling": Dueling, "state_action": StateAction}
_OWN = frozenset(NETWORKS.values())  # they need no look, which takes a pass forward


def make_network(
    config: AnyNetworkConfig | None, observation: ObservationSpec, outputs: int, seed: int, device: torch.device,
    per_action: int = 1, around: Callable[[nn.Module], nn.Module] | None = None,
) -> FlatNetwork:  # fmt: skip
    """Weights are drawn on the CPU from `seed` alone, so they are the same on every device; no other stream moves.

    Args:
        per_action: the numbers of each action among `outputs`, one action after the other; for streams of value and
            advantage.
        around: makes the module whose parameters these are of the network's.

    Raises:
        RequestError: `config` is None: the run's config has no network; or a plug-in's network cannot be built, or is
            none that can be trained.
    """
    if config is None:
        raise RequestError("network: is missing, and the algorithm needs one")
    if config.name not in NETWORKS:
        where = "it is not in rltrain.networks.NETWORKS"
        raise RequestError(f"network={config.name}: {where}, to which a plug-in adds NETWORKS[{config.name!r}] = ...")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device's
        streams = (per_action,) if isinstance(config, CNNConfig | DuelingConfig) else ()
        make, arguments = NETWORKS[config.name], (config, observation, outputs, *streams)
        try:
            inner = make(*arguments) if make in _OWN else called(make, *arguments)
            module = around(inner) if around else inner
            if getattr(config, "noisy", False):
                add_deviations(module)
            if type(inner) not in _OWN:
                check_plugin(inner, observation, outputs)
            return FlatNetwork(module, device)
        except ValueError as error:
            raise RequestError(f"network={config.name}: {error}") from error


def check_population(config: AnyNetworkConfig | None, network: FlatNetwork, observation: ObservationSpec) -> None:
    """Whether the networks of several members can be computed together; passes a plug-in's forward once.

    Raises:
        RequestError: they cannot.
    """
    if config is None or NETWORKS[config.name] in _OWN or network.params.is_meta:
        return
    try:
        check_together(network.apply, network.params, observation)
    except ValueError as error:
        alone = "hydra/launcher=basic trains one job after the other"
        raise RequestError(f"network={config.name}: a population cannot compute it: {error}\n{alone}") from error
