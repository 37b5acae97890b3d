"""Compiled functions without checks per call: each keeps its own program."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rltrain.compiling import compiled, has_compiler


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.sin(x) * factor


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_two_functions_of_one_shape_do_not_get_each_other_s_program() -> None:
    x = torch.linspace(0.0, 1.0, 7)
    functions = [compiled(scaled(factor), scaled(factor), fixed_shapes=True) for factor in (2.0, 3.0)]
    for _ in range(2):
        for function, factor in zip(functions, (2.0, 3.0), strict=True):
            torch.testing.assert_close(function(x), torch.sin(x) * factor)
