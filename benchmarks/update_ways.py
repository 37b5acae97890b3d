"""Ways to compute one DQN update, timed side by side: the figures of docs/adr/0001-one-pure-update-function.md.

Double DQN, Huber loss, clipping by norm, Adam, a soft target; batch 128, network 4-120-84-2, one thread, on the CPU.
The ways take turns, in CPU time of this process, and each figure is the fastest of its rounds: what else the machine
does then matters less. Ratios hold better than microseconds.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rltrain.agents.dqn import DQN
from rltrain.config.application import compose
from rltrain.config.schema import DQNConfig, NetworkConfig, OptimizerConfig
from rltrain.engine.algorithm import Build, State
from rltrain.losses.value import double_q_next_value, select_action_values, td_loss, td_target
from rltrain.networks import make_network
from rltrain.networks.flat import Apply
from rltrain.optimizers import clip_gradient, eager_gradient, functional_gradient, init_optimizer, optimizer_step
from rltrain.replay import Batch
from rltrain.types import ActionSpec, ObservationSpec

CPU = torch.device("cpu")
BATCH, MEMBERS, TAU = 128, 32, 0.01
CALLS, ROUNDS = 20, 30
ADAM = OptimizerConfig("adam", 5e-4, 1e-8, 0.0, False)
CONFIG = DQNConfig("dqn", 0.99, 1, True, BATCH, 1000, 0, 1, 1, 10.0, None, ADAM, None, "huber")
OBSERVATION = ObservationSpec("box", (4,), "float32")
NETWORK = make_network(NetworkConfig("mlp", (120, 84), "relu", 1.0), OBSERVATION, 2, 0, CPU)
PARAMS = NETWORK.params.clone()  # [P]
Way = Callable[[], object]


def by_functional_call(params: Tensor, obs: Tensor) -> Tensor:
    output: Tensor = functional_call(NETWORK._module, NETWORK.named(params), (obs,))
    return output


def stacked(members: tuple[int, ...]) -> tuple[State, Batch, dict[str, Tensor]]:
    """What an update takes, with leading axes `members` (none: of one member)."""
    params = PARAMS.expand((*members, -1)).clone()
    optimizer = {name: x.expand((*members, *x.shape)).clone() for name, x in init_optimizer(ADAM, PARAMS).items()}
    obs, next_obs = torch.randn(2, *members, BATCH, 4)
    action, reward = torch.randint(0, 2, (*members, BATCH)), torch.randn(*members, BATCH)
    batch = Batch(obs, action, reward, next_obs, torch.full((*members, BATCH), 0.99))
    hyperparameters = {name: torch.full(members, x) for name, x in (("lr", 5e-4), ("max_grad_norm", 10.0))}
    return State({"q_network": params, "target_network": params.clone()}, optimizer), batch, hyperparameters


def pure(apply: Apply, gradient: Callable[..., object], members: tuple[int, ...] = (), compiled: bool = False) -> Way:
    """Our update as a pure function of one flat vector, followed by the target's lerp."""
    run_config, _ = compose(["algo=dqn", "tuned=none", "network.hidden=[120,84]"])
    dqn = DQN(Build(replace(run_config, algo=CONFIG), OBSERVATION, ActionSpec("discrete", (), n=2), CPU))
    dqn.apply = apply
    update: Callable[..., object] = partial(dqn.learn, gradient=gradient)
    update = torch.vmap(update) if members else update
    update = torch.compile(update, fullgraph=True, dynamic=False) if compiled else update
    state, batch, hyperparameters = stacked(members)
    own, target = state.networks["q_network"].clone(), state.networks["target_network"]

    def run() -> None:
        with torch.no_grad():
            new_state, *_ = update(state, batch, hyperparameters)
            own.copy_(new_state.networks["q_network"])
            target.lerp_(own, TAU)

    return run


def modules() -> Way:
    """The usual PyTorch loop: modules, backward, torch.optim."""
    network, target = copy.deepcopy(NETWORK._module), copy.deepcopy(NETWORK._module)
    parameters = [nn.Parameter(p.clone()) for p in network.parameters()]
    for (name, _), parameter in zip(list(network.named_parameters()), parameters, strict=True):
        owner, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(owner), attribute, parameter)
    optimizer = torch.optim.Adam(parameters, lr=5e-4, fused=True)
    _, batch, _ = stacked(())

    def run() -> None:
        q_value = select_action_values(network(batch.obs), batch.action)
        with torch.no_grad():
            next_value = double_q_next_value(network(batch.next_obs), target(batch.next_obs))
        loss = td_loss("huber", q_value, td_target(batch.reward, batch.discount, next_value)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in parameters], TAU)

    return run


def steps_of_the_optimizer() -> dict[str, Way]:
    grad, target, lr, norm = torch.randn_like(PARAMS), PARAMS.clone(), torch.tensor(5e-4), torch.tensor(10.0)
    state, leaf = init_optimizer(ADAM, PARAMS), nn.Parameter(PARAMS.clone())
    leaf.grad = grad.clone()
    fused = torch.optim.Adam([leaf], lr=5e-4, fused=True)

    def ours() -> None:
        clipped, _ = clip_gradient(grad, norm, None)
        params, _ = optimizer_step(ADAM, PARAMS, clipped, state, lr)
        target.lerp_(params, TAU)

    return {"torch's fused Adam alone, one flat vector": fused.step, "our clip + Adam + target": ours}


def refusal(way: Callable[[], Way]) -> str:
    try:
        way()()
    except Exception as error:
        return f"refused: {type(error).__name__}"
    return "works"


def time_all(ways: dict[str, Way]) -> dict[str, float]:
    """Microseconds per call."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            calls = max(2, CALLS // MEMBERS) if "members" in name else CALLS
            start = time.process_time()
            for _ in range(calls):
                way()
            best[name] = min(best[name], (time.process_time() - start) / calls * 1e6)
    return best


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = "autograd on the flat vector, FlatNetwork.apply (ours, eager)"
    one = {
        "torch.func.grad, functional_call": pure(by_functional_call, functional_gradient),
        "torch.func.grad, FlatNetwork.apply": pure(NETWORK.apply, functional_gradient),
        "autograd on the flat vector, functional_call": pure(by_functional_call, eager_gradient),
        chosen: pure(NETWORK.apply, eager_gradient),
        "modules, backward, fused Adam": modules(),
        "torch.func.grad, compiled (ours, compiled)": pure(NETWORK.apply, functional_gradient, compiled=True),
    }
    together = {
        f"vmap, {MEMBERS} members, per member": pure(NETWORK.apply, functional_gradient, (MEMBERS,)),
        f"vmap, {MEMBERS} members, compiled, per member": pure(NETWORK.apply, functional_gradient, (MEMBERS,), True),
    }
    parts = steps_of_the_optimizer()
    for way in (*one.values(), *together.values(), *parts.values()):
        way()  # compiles
    times = time_all({**one, **together, **parts})
    for name in together:
        times[name] /= MEMBERS
    print(f"torch {torch.__version__}, one thread, batch {BATCH}, 4-120-84-2; us per update, ratio to ours, eager")
    for name, us in times.items():
        print(f"{name:<62} {us:7.0f}  {us / times[chosen]:5.2f}")
    print("autograd.grad inside torch.compile:", refusal(lambda: pure(NETWORK.apply, eager_gradient, compiled=True)))
    print("autograd.grad inside torch.vmap:", refusal(lambda: pure(NETWORK.apply, eager_gradient, (MEMBERS,))))


if __name__ == "__main__":
    main()
