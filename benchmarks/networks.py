"""`make bench-networks`: a Q-network of state and action beside one that returns all values at once.

Both with the same hidden layers, in one process, the two taking turns: the ratio is what counts, not the microseconds.
Then both learn CartPole-v1 on the same seeds. Writes docs/networks_benchmark.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from rltrain.agents.dqn import DQN
from rltrain.config.application import compose
from rltrain.config.schema import AnyNetworkConfig, NetworkConfig, RunConfig, StateActionConfig
from rltrain.engine.algorithm import Build, State
from rltrain.networks import make_network
from rltrain.optimizers import eager_gradient
from rltrain.replay import Batch
from rltrain.types import ActionSpec, ObservationSpec

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "networks"
PAGE = ROOT / "docs" / "networks_benchmark.md"
CPU = torch.device("cpu")
OBSERVATION = ObservationSpec("box", (8,), "float32")
BATCH, HIDDEN = 128, (128, 128)
ACTIONS = (2, 4, 8, 18, 64)
NETWORKS: dict[str, AnyNetworkConfig] = {
    "mlp": NetworkConfig("mlp", HIDDEN, "relu", 1.0),
    "state_action": StateActionConfig("state_action", HIDDEN, "relu", 1.0),
}


def update_of(network: AnyNetworkConfig, config: RunConfig, actions: int) -> Callable[[], object]:
    """One gradient step of DQN on a batch, uncompiled."""
    action = ActionSpec("discrete", (), n=actions)
    dqn = DQN(Build(replace(config, network=network), OBSERVATION, action, CPU))
    params = dqn.networks["q_network"].params
    state = State({"q_network": params, "target_network": params.clone()}, dqn.init_optimizer())
    obs, next_obs = torch.randn(2, BATCH, *OBSERVATION.shape)
    batch = Batch(obs, torch.randint(0, actions, (BATCH,)), torch.randn(BATCH), next_obs, torch.full((BATCH,), 0.99))
    knobs = {name: torch.tensor(value) for name, value in dqn.knobs.items()}
    return lambda: dqn.learn(state, batch, knobs, eager_gradient)


def seconds(calls: dict[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, float]:
    """The least processor time per call of each, taken in turns: what else runs on the machine only ever adds."""
    best = dict.fromkeys(calls, float("inf"))
    with torch.no_grad():
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.process_time()
                for _ in range(repeats):
                    call()
                best[name] = min(best[name], (time.process_time() - start) / repeats)
    return best


def costs(rounds: int) -> list[str]:
    config, _ = compose(["algo=dqn", "tuned=none"])
    obs = torch.randn(1, *OBSERVATION.shape)
    lines = [
        "| actions | update: mlp, us | state_action, us | ratio | action: mlp, us | state_action, us | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for actions in ACTIONS:
        networks = {name: make_network(network, OBSERVATION, actions, 0, CPU) for name, network in NETWORKS.items()}
        updates = seconds({name: update_of(net, config, actions) for name, net in NETWORKS.items()}, rounds, 5)
        acts = seconds({name: lambda net=net: net(obs).argmax(-1) for name, net in networks.items()}, rounds, 50)
        cells = [
            f"{1e6 * found['mlp']:.0f} | {1e6 * found['state_action']:.0f} | {found['state_action'] / found['mlp']:.1f}"
            for found in (updates, acts)
        ]
        lines.append(f"| {actions} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def learning(seeds: int, steps: int) -> tuple[str, list[str]]:
    """Both on CartPole-v1, each with its seeds as a population."""
    lines = [
        "| network | parameters | greedy return per seed, 100 episodes | mean | processor seconds |",
        "|---|---|---|---|---|",
    ]
    command = ["algo=dqn", "env=CartPole-v1", "network.hidden=[64,64]", "network.activation=tanh"]
    command += [f"total_steps={steps}", "stop_at_return=null", "eval.period=null", "checkpoint.period=null"]
    for name in NETWORKS:
        folder = RUNS / name
        shutil.rmtree(folder, ignore_errors=True)
        args = ["-m", *command, f"network={name}", f"seed=range(0,{seeds})", f"hydra.sweep.dir={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "rltrain", *args], cwd=ROOT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"rltrain {' '.join(args)} failed")
        results = [json.loads((folder / str(job) / "result.json").read_text()) for job in range(seeds)]
        means = [result["episode_return"]["mean"] for result in results]
        network = compose([*command, f"network={name}"])[0].network
        size = make_network(network, ObservationSpec("box", (4,), "float32"), 2, 0, CPU).params.numel()
        lines.append(
            f"| `{name}` | {size:,} | {', '.join(f'{mean:.0f}' for mean in means)} | {statistics.mean(means):.0f}"
            f" | {usage.ru_utime + usage.ru_stime:.0f} |"
        )
    return f"rltrain -m {' '.join(command)} network=mlp,state_action 'seed=range(0,{seeds})'", lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = costs(options.rounds)
    command, outcome = learning(options.seeds, options.steps)
    text = [
        "# State and action in, one value out: what it costs",
        f"Made by `make bench-networks` on one CPU core: {len(HIDDEN)} hidden layers of {HIDDEN[0]} units, {BATCH}"
        " transitions per update, DQN's double update, uncompiled. The two take turns, and the least processor"
        f" time of {options.rounds} rounds counts. The machine had other work to do meanwhile: read the ratios.",
        "\n".join(table),
        "`state_action` computes all A values also for the actions that were taken, of which one each would do; so a"
        " version made for this one purpose would save some of its update, and nothing of its action.",
        "## Learning",
        f"`{command}`, the tuned settings otherwise. A few seeds say that both learn, not which learns better."
        " Processor seconds are of all seeds together, with compiling and the last evaluation.",
        "\n".join(outcome),
    ]
    PAGE.write_text("\n\n".join(text) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
