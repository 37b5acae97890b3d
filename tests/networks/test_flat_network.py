"""A network as a function of one vector: the same maths as the module, and the module left as it was."""

from __future__ import annotations

import re

import pytest
import torch
from small_runs import CPU, VECTOR
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from rltrain.config.schema import NetworkConfig
from rltrain.networks import make_network
from rltrain.networks.flat import FlatNetwork

CONFIG = NetworkConfig("mlp", (5, 4), "tanh", 1.0)


def small_network(seed: int = 0, device: torch.device = CPU) -> FlatNetwork:
    return make_network(CONFIG, VECTOR, 2, seed, device)


def module_of(network: FlatNetwork) -> nn.Module:
    return network._module


def own_parameters(network: FlatNetwork) -> dict[str, Tensor]:
    return dict(module_of(network).named_parameters())


def test_apply_equals_functional_call_bit_for_bit() -> None:
    network, obs = small_network(), torch.randn(7, 3)
    other = torch.randn_like(network.params)
    expected = functional_call(module_of(network), network.named(other), (obs,))
    assert torch.equal(network.apply(other, obs), expected)
    assert torch.equal(network.apply(network.params, obs), network(obs))
    assert not torch.equal(network(obs), expected)


def test_apply_leaves_the_modules_own_parameters_in_place_also_when_it_fails() -> None:
    network, obs = small_network(), torch.randn(7, 3)
    before, output = own_parameters(network), network(obs)
    other = torch.randn_like(network.params)
    network.apply(other, obs)
    with pytest.raises(RuntimeError):
        network.apply(other, torch.randn(7, 4))
    after = own_parameters(network)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert torch.equal(network(obs), output)


def test_the_gradient_of_apply_is_the_modules() -> None:
    network, obs = small_network(), torch.randn(7, 3)
    found = grad(lambda params: network.apply(params, obs).square().mean())(network.params)
    module = module_of(network)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module(obs).square().mean().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected)


def test_vmap_over_vectors_equals_one_by_one() -> None:
    networks = [small_network(seed) for seed in range(3)]
    stacked, obs = torch.stack([n.params for n in networks]), torch.randn(3, 7, 3)
    found = vmap(networks[0].apply)(stacked, obs)
    torch.testing.assert_close(found, torch.stack([n(o) for n, o in zip(networks, obs, strict=True)]))


def test_the_vector_and_the_module_share_memory() -> None:
    network = small_network()
    total = sum(p.numel() for p in module_of(network).parameters())
    assert network.params.shape == (total,) == (3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2,)
    network.params.zero_()
    assert not network(torch.randn(4, 3)).any()
    assert not network.params.requires_grad


def test_state_dict_and_flatten_are_inverse_and_names_are_the_modules() -> None:
    network, other = small_network(0), small_network(1)
    state = network.state_dict()
    assert list(state) == list(own_parameters(network))
    assert torch.equal(other.flatten(state), network.params)
    memory = other.params.data_ptr()
    other.load_state_dict({name: state[name] for name in reversed(state)})  # a file may hold another order
    assert torch.equal(other.params, network.params)
    assert other.params.data_ptr() == memory
    network.params.zero_()
    assert all(tensor.any() for tensor in state.values())  # copies
    vector = torch.arange(float(len(network.params)))
    assert torch.equal(network.flatten(network.state_dict(vector)), vector)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(change: str) -> None:
    network = small_network()
    state, before = network.state_dict(), network.params.clone()
    name = next(iter(state))
    if change == "missing":
        del state[name]
        difference = f"{name} is missing"
    elif change == "extra":
        state["another.weight"] = torch.zeros(1)
        difference = "it has no another.weight"
    else:
        difference = f"{name} has the shape {tuple(state[name].shape)}, and in the file {tuple(state[name].T.shape)}"
        state[name] = state[name].T  # as many numbers
    with pytest.raises(ValueError, match=re.escape(f"the weights do not fit the network: {difference}")):
        network.load_state_dict({key: tensor + 1.0 for key, tensor in state.items()})
    assert torch.equal(network.params, before)


def test_buffers_and_shared_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="BatchNorm1d has buffers"):
        FlatNetwork(nn.BatchNorm1d(3), CPU)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="may not share"):
        FlatNetwork(tied, CPU)


def test_frozen_parameters_are_refused_by_name() -> None:
    # They were trained like the others: the vector knows no part that stays.
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"one vector, Sequential has some with requires_grad=False: \['0.weight'\]"):
        FlatNetwork(module, CPU)


def test_parameters_of_another_type_or_none_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be float32, Sequential has 1\.weight of float64"):
        FlatNetwork(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2).double()), CPU)
    with pytest.raises(ValueError, match="must have parameters, ReLU has none"):
        FlatNetwork(nn.ReLU(), CPU)


def test_a_seed_gives_the_same_weights_on_every_device(device: torch.device) -> None:
    network = small_network(3, device)
    assert network.params.device == device
    assert torch.equal(network.params.cpu(), small_network(3).params)


def test_weights_depend_on_the_seed_alone_and_no_other_stream_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a device's stream was seeded"))
    first = small_network(3).params
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(small_network(3).params, first)
    assert not torch.equal(small_network(4).params, first)
