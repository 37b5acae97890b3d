"""Recorded procedures: the same bits as operation by operation, and no recording of what is not always the same."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from halves import often
from small_runs import CPU, DISCRETE, VECTOR, ScriptedEnvs, dqn_config, drive, run_config
from torch import Tensor

from rltrain.agents import AgentContext, make_agent
from rltrain.compute import recorded
from rltrain.compute.recorded import Recorded

Procedure = Callable[..., None]


def calls_of(procedure: Procedure, args: tuple[Any, ...], calls: int, between: Procedure = lambda *_: None) -> Recorded:
    run = Recorded(procedure, args)
    for _ in range(calls):
        run()
        between(*args)
    return run


class TestRecording:
    def test_a_gradient_step_in_place(self) -> None:
        """Ten steps down a slope, by autograd, with a cursor that picks another row in every call."""

        def step(weight: Tensor, data: Tensor, cursor: Tensor) -> None:
            row = data.index_select(0, cursor)
            own = weight.detach().requires_grad_()
            with torch.enable_grad():
                loss = (torch.tanh(row @ own) - torch.tensor(0.5)).square().sum()
            (grad,) = torch.autograd.grad(loss, own)
            weight.sub_(0.1 * grad)
            cursor.add_(1)

        def start() -> tuple[Tensor, Tensor, Tensor]:
            generator = torch.Generator().manual_seed(1)
            weight, data = torch.randn(3, 2, generator=generator), torch.randn(10, 3, generator=generator)
            return weight, data, torch.zeros(1, dtype=torch.int64)

        plain, args = start(), start()
        for _ in range(10):
            step(*plain)
        run = calls_of(step, args, 10)
        assert run.interpreted
        assert all(torch.equal(a, b) for a, b in zip(plain, args, strict=True))

    def test_views_of_arguments_are_made_once_and_see_what_is_written(self) -> None:
        def step(x: Tensor, out: Tensor) -> None:
            turned = x.view(2, 2).t().detach()
            x.add_(1)
            out.copy_(turned * 2)

        x, out = torch.arange(4.0), torch.zeros(2, 2)
        assert calls_of(step, (x, out), 7).interpreted
        assert out.tolist() == [[14, 18], [16, 20]]
        with recorded._Recorder([x, out]) as recorder:
            step(x, out)
        every_call, once = recorded._split(recorder, 2)
        assert [op.function._opname for op in every_call] == ["add_", "mul", "copy_"]
        assert [op.function._opname for op in once] == ["view", "t"]

    def test_making_the_recording_changes_nothing(self) -> None:
        """The interpreter's graph is made by running the operations once more: not on the arguments."""
        total = torch.zeros(1)
        run = Recorded(lambda x: x.add_(1), (total,))
        assert [float((run(), total)[1]) for _ in range(5)] == [1, 2, 3, 4, 5]
        assert run.interpreted

    def test_large_arguments_are_not_copied(self) -> None:
        large = torch.ones(2**20)
        run = calls_of(lambda x: x[:1].add_(1), (large,), 4)
        assert run.interpreted and large[0] == 5 and large[1] == 1

    def test_what_torch_makes_of_graphs_is_left_as_it_was(self) -> None:
        torch._C._set_graph_executor_optimize(True)
        calls_of(lambda x: x.add_(1), (torch.zeros(1),), 4)
        assert torch._C._get_graph_executor_optimize()


class TestWhatIsNotTheSameInEveryCall:
    """Such a procedure runs as it is, with the numbers that it has without any recording."""

    def sums(self, procedure: Procedure, calls: int = 6) -> tuple[list[float], list[float]]:
        plain, total = torch.zeros(1), torch.zeros(1)
        run = Recorded(procedure, (total,))
        found, expected = [], []
        for _ in range(calls):
            run()
            found.append(float(total))
        assert not run.interpreted
        for _ in range(calls):
            procedure(plain)
            expected.append(float(plain))
        return found, expected

    def test_control_flow_on_values(self, caplog: pytest.LogCaptureFixture) -> None:
        def doubles_small(x: Tensor) -> None:
            if x.sum() > 2:
                x.mul_(2)
            else:
                x.add_(1)

        with caplog.at_level(logging.INFO):
            found, expected = self.sums(doubles_small)
        assert found == expected == [1, 2, 3, 6, 12, 24]
        assert "takes numbers out of tensors" in caplog.text

    def test_numbers_from_outside(self) -> None:
        def counts(x: Tensor) -> None:
            seen.append(1)
            x.add_(len(seen))

        seen: list[int] = []
        found, _ = self.sums(counts)
        assert found == [1, 3, 6, 10, 15, 21]

    def test_tensors_from_outside(self) -> None:
        def reads(x: Tensor) -> None:
            seen.append(1)
            x.add_(torch.from_numpy(np.full(1, len(seen), np.float32)))

        seen: list[int] = []
        found, _ = self.sums(reads)
        assert found == [1, 3, 6, 10, 15, 21]

    def test_a_tensor_that_stays_may_change(self) -> None:
        """A buffer of a network: always the same tensor, read anew in every call."""
        buffer, total = torch.ones(2), torch.zeros(2)
        run = calls_of(lambda x: x.add_(buffer), (total,), 5, between=lambda _: buffer.add_(1))
        assert run.interpreted and total.tolist() == [15, 15]

    def test_an_error_is_raised_as_it_is(self) -> None:
        """A cursor that runs out of the rows."""
        data, cursor = torch.zeros(4, 1), torch.zeros(1, dtype=torch.int64)

        def moves(rows: Tensor, at: Tensor) -> None:
            rows.index_fill_(0, at, 1.0)
            at.add_(1)

        run = calls_of(moves, (data, cursor), 4)
        assert run.interpreted
        with pytest.raises((IndexError, RuntimeError)):
            run()


@pytest.mark.parametrize("members", often([1, 3], [3]))
@pytest.mark.parametrize(
    "changes", often([{}, {"loss": "mse", "max_grad_value": 0.5, "double": False, "gradient_steps": 3}], [{}])
)
def test_an_agent_learns_the_same(members: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tuple(run_config(dqn_config(**changes), seed=seed) for seed in range(members))
    context = AgentContext(configs[0], VECTOR, DISCRETE, CPU, population=configs if members > 1 else ())
    runs = []
    for records in (False, True):
        gc.collect()
        monkeypatch.setattr(recorded, "available", lambda records=records: records)
        agent = make_agent(context)
        metrics = [{tag: value.clone() for tag, value in m.items()} for m in drive(agent, ScriptedEnvs(members), 60)]
        assert records == any(type(x) is Recorded and x.interpreted for x in gc.get_objects())
        runs.append((metrics, [agent.state_dict(member) for member in range(members)]))
    (expected, plain), (found, states) = runs
    assert sum(map(bool, expected)) > 30
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for sections, others in zip(states, plain, strict=True):
        assert sections["state"] == others["state"]
        for name in ("network", "optimizer", "replay"):
            torch.testing.assert_close(sections[name], others[name], rtol=0, atol=0)
