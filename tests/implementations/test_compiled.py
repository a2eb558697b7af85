"""PyTorch's compiled form, marked slow: it builds with a C++ compiler and takes its time."""

import shutil

import pytest

from lockstep.oracle import loop
from lockstep.oracle.compare import compare_bits
from lockstep.problem import iris_adamw


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adamw_on_iris_in_bits_compiled_in_pytorch(all_workers, dtype) -> None:
    problem = iris_adamw(dtype)
    actual = all_workers["pytorch"].train("pytorch_impl.compiled", problem)
    comparison = compare_bits(loop.trajectory(problem), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == 1500
