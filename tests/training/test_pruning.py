from __future__ import annotations

import itertools
import random
import warnings

import pytest

from rltrain.training.pruning import PruningRule, SeedPruning, TrialPruning, means_over_seeds, pruned_at

optuna = pytest.importorskip("optuna")


def test_a_mean_needs_every_seed_and_a_seed_that_ended_stays_at_its_last() -> None:
    values = [{1: 10.0, 2: 20.0, 3: 30.0}, {1: 0.0, 2: 4.0}]
    assert means_over_seeds(values, []) == {1: 5.0, 2: 12.0}
    assert means_over_seeds(values, [1]) == {1: 5.0, 2: 12.0, 3: 17.0}
    assert means_over_seeds([{1: 1.0}, {}], [1]) == {}, "a seed that was never evaluated cannot be judged"


def test_the_best_until_now_is_held_against_the_limit() -> None:
    assert pruned_at({1: 5.0, 2: 1.0}, {2: 5.0}) is None
    assert pruned_at({1: 4.9, 2: 1.0}, {2: 5.0}) == 2
    assert pruned_at({1: 0.0, 2: 5.0}, {2: 5.0}) is None
    assert pruned_at({1: 0.0}, {2: 5.0}) is None


def test_decisions_are_those_of_optunas_median_pruner() -> None:
    """Trials whose returns are random: both give up the same ones at the same evaluation."""
    from rltrain.tuning.search import medians

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = random.Random(3)
    warmup, least, last = 2, 4, 6
    pruner = optuna.pruners.MedianPruner(n_startup_trials=least, n_warmup_steps=warmup)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    complete, seen = [], 0
    for _ in range(40):
        values = {number: rng.gauss(0, 1) for number in range(1, last)}
        limits = medians(complete, [], last, warmup, least)  # Optuna's goes by complete trials alone
        trial = study.ask()
        given_up = None
        for number, value in values.items():
            trial.report(value, number)
            if trial.should_prune():
                given_up = number
                break
        assert pruned_at(values, limits) == given_up
        seen += given_up is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if given_up is None:
                complete.append(values)
                study.tell(trial, 0.0)
            else:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert 10 < seen < 30


def test_the_decision_does_not_depend_on_which_seed_is_ahead() -> None:
    reports = [(0, 1, 3.0), (0, 2, 2.0), (1, 1, 4.0), (1, 2, 1.0)]
    for order in itertools.permutations(reports):
        if any([number for seed, number, _ in order if seed == s] != [1, 2] for s in (0, 1)):
            continue  # each seed makes its evaluations in their order
        trial = TrialPruning(PruningRule(0, 2, {2: 3.6}))
        for seed, number, value in order:
            trial.report(seed, {number: value})
        assert trial.pruned
        trial = TrialPruning(PruningRule(0, 2, {2: 3.5}))
        for seed, number, value in order:
            trial.report(seed, {number: value})
        assert not trial.pruned


def test_seeds_share_their_trial() -> None:
    trial = TrialPruning(PruningRule(0, 2, {1: 5.0}))
    first, second = SeedPruning(trial, 0), SeedPruning(trial, 1)
    first.report(1, 0.0)
    assert not first.pruned, "the other seed may be good"
    second.report(1, 9.0)
    assert first.pruned and second.pruned
    trial = TrialPruning(PruningRule(0, 2, {2: 5.0}))
    SeedPruning(trial, 0).report(1, 0.0)
    SeedPruning(trial, 0).end()
    SeedPruning(trial, 1).report(1, 0.0)
    assert not trial.pruned
    SeedPruning(trial, 1).report(2, 9.0)
    assert trial.pruned
