"""Which cases of a test are in the fast half (`make test`) and which in the slow one (`make test-all`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def often(cases: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """The parameters of all cases (a tuple is of several parameters), slow but for `kept`, which must be among them."""
    cases = list(cases)
    assert all(case in cases for case in kept), f"not all of {kept} are among {cases}"
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in kept else pytest.mark.slow)
        for case in cases
    ]
