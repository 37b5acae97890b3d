"""Dueling and state-action networks against hand values and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_runs import VECTOR

from rltrain.config.schema import DuelingConfig, StateActionConfig
from rltrain.networks.dueling import Dueling, combine_streams
from rltrain.networks.state_action import StateAction

DUELING = DuelingConfig("dueling", (5,), (4,), "tanh", 1.0)
STATE_ACTION = StateActionConfig("state_action", (5, 4), "tanh", 1.0)


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def test_streams_are_combined_as_in_equation_9() -> None:
    value = torch.tensor([[10.0], [20.0]])
    advantage = torch.tensor([[1.0, 2.0, 6.0], [-3.0, 0.0, 0.0]])  # means 3 and -1
    assert combine_streams(value, advantage).tolist() == [[8.0, 9.0, 13.0], [18.0, 21.0, 21.0]]


def test_the_mean_of_q_is_the_value_and_a_constant_advantage_is_nothing() -> None:
    value, advantage = torch.randn(2, 7, 1), torch.randn(2, 7, 4)
    torch.testing.assert_close(combine_streams(value, advantage).mean(-1, keepdim=True), value)
    torch.testing.assert_close(combine_streams(value, advantage + 5.0), combine_streams(value, advantage))


@pytest.mark.parametrize("per_action", [1, 4])
def test_the_dueling_network_equals_numpy(per_action: int) -> None:
    """Of several numbers per action each is combined by itself: atom by atom in Hessel et al. 2018."""
    torch.manual_seed(0)
    network = Dueling(DUELING, VECTOR, 3 * per_action, per_action)
    obs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    p = arrays(network)
    body = np.tanh(obs @ p["body.1.weight"].T + p["body.1.bias"])
    streams = {}
    for name in ("value", "advantage"):
        inner = np.tanh(body @ p[f"head.{name}.0.weight"].T + p[f"head.{name}.0.bias"])
        streams[name] = inner @ p[f"head.{name}.2.weight"].T + p[f"head.{name}.2.bias"]
    value, advantage = streams["value"][:, None], streams["advantage"].reshape(7, 3, per_action)
    expected = (value + advantage - advantage.mean(1, keepdims=True)).reshape(7, -1)
    np.testing.assert_allclose(network(torch.from_numpy(obs)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_batch_row_of_the_dueling_network_does_not_depend_on_the_others() -> None:
    network, obs = Dueling(DUELING, VECTOR, 3), torch.randn(4, 6, 3)
    torch.testing.assert_close(network(obs)[2, 3], network(obs[2, 3]))


def test_the_state_action_network_asks_once_per_action() -> None:
    """Each value is the network of the observation with that action's own one-hot vector beside it."""
    torch.manual_seed(0)
    network, obs = StateAction(STATE_ACTION, VECTOR, 4), np.random.default_rng(0).normal(size=(7, 3))
    p = arrays(network)
    expected = np.zeros((7, 4))
    for row in range(7):
        for action in range(4):
            x = np.array([*obs[row], *(1.0 if a == action else 0.0 for a in range(4))])
            x = np.tanh(p["layers.0.weight"] @ x + p["layers.0.bias"])
            x = np.tanh(p["layers.2.weight"] @ x + p["layers.2.bias"])
            expected[row, action] = (p["layers.4.weight"] @ x + p["layers.4.bias"]).item()
    found = network(torch.from_numpy(obs.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [Dueling(DUELING, VECTOR, 3), StateAction(STATE_ACTION, VECTOR, 3)])
def test_leading_axes_stay(network: torch.nn.Module) -> None:
    assert network(torch.zeros(3)).shape == (3,)
    assert network(torch.zeros(2, 5, 3)).shape == (2, 5, 3)
