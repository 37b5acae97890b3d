"""Why the return of an ended run may be what it is: a row of its table, a word in a population's line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rltrain.config.algorithms import steadier
from rltrain.config.schema import RunConfig
from rltrain.training.episode_tally import EpisodeStatistics
from rltrain.training.member import Member
from rltrain.training.value_check import beyond_bounds

_FAR_ABOVE = 5.0  # times the return; healthy values are within a tenth of it
_FAR_FROM_GREEDY = 0.5  # of the larger return, beside the deviation of greedy episodes
_LARGE_KL = 1.0  # nats between the policy that acted and the one learned from it; healthy is below 0.05
_NO_ENTROPY = 1e-3  # nats: one action is all but certain in every state
_DORMANT = 0.75  # of the hidden units; a network that learns keeps most of its own awake
_EXPLORES = 0.1  # epsilon above which acting at random explains the return of training
_LEAST_EPISODES = 100  # before which a network has hardly learned


class Finding(NamedTuple):
    """One reason: `row` and `text` of the table of a run, and `short`, in the line of one among many."""

    row: str
    text: str
    short: str


def findings(config: RunConfig, member: Member, final: EpisodeStatistics, threshold: float | None) -> Iterator[Finding]:
    """
    Args:
        final: of the last network's greedy episodes.
        threshold: the return that solves the environment, where it has one.
    """
    metrics = member.metrics
    if said := beyond_bounds(config, metrics):
        yield Finding("values", said, "returns are beyond algo.v_min or algo.v_max")
    elif said := overestimated(config, metrics):
        yield Finding("values", said, "values overestimated")
    dormant = metrics.get("diagnostics/dormant_units", 0.0)
    if threshold is not None and final.mean < threshold and dormant > _DORMANT:
        text = (
            f"{dormant:.0%} of the hidden units are dead; try a smaller algo.optimizer.lr, or network.layer_norm=true"
        )
        yield Finding("network", text, f"{dormant:.0%} of the hidden units are dead")
    kl, entropy = metrics.get("train/approx_kl", 0.0), metrics.get("train/entropy", 1.0)
    if threshold is not None and final.mean < threshold and 0.0 <= entropy < _NO_ENTROPY:
        text = "collapsed to one action per state; try a smaller algo.optimizer.lr, or a larger algo.entropy_coef"
        yield Finding("policy", text, "policy collapsed to one action")
    elif kl > _LARGE_KL:
        text = f"moved too far in the last rollout, KL {kl:.3g}; try a smaller algo.optimizer.lr, or algo.target_kl"
        yield Finding("policy", text, f"policy moved too far, KL {kl:.3g}")
    training = metrics.get("rollout/episode_return")
    learned = member.episodes >= _LEAST_EPISODES and metrics.get("train/epsilon", 0.0) <= _EXPLORES
    if training is not None and learned and _leans_on_exploration(training, final):
        text = f"{training:.1f} of late, far above: the network leans on exploration"
        yield Finding("in training", text, f"{training:.1f} in training: leans on exploration")


def overestimated(config: RunConfig, metrics: Mapping[str, float]) -> str:
    """That values are far above the returns, where they are: the return alone does not tell why it is poor."""
    value, got = (metrics.get(f"diagnostics/{name}", 0.0) for name in ("value", "discounted_return"))
    scale = max(abs(got), 1.0)
    # Where rewards are costs, a value far on the other side of 0 is wrong long before it is five returns away.
    if value - got <= _FAR_ABOVE * scale and not (got < 0.0 and value > 2.0 * scale):
        return ""
    advice = "".join(f"; try {one}" for one in steadier(config.algo)[:1])
    return f"overestimated: {value:.3g} expected of an episode where {got:.3g} came{advice}"


def _leans_on_exploration(training: float, final: EpisodeStatistics) -> bool:
    """Whether the last episodes of training returned far more than the greedy network, which may be stuck where an
    action that does not change leads nowhere. An evaluation that cut episodes does not know what they return."""
    return not final.cut and training - final.mean > final.std + _FAR_FROM_GREEDY * max(abs(training), abs(final.mean))
