"""Where two forward passes part: convolutions, whose inputs one of the runs may pad itself."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")
nn = torch.nn

NUMBERS = np.random.default_rng(6)
# As many channels as rows and columns: an array's axes do not tell which is which.
KERNELS = {"a": NUMBERS.normal(size=(6, 6, 3, 3)) / 5, "b": NUMBERS.normal(size=(6, 6, 3, 3)) / 5}
X = NUMBERS.normal(size=(4, 6, 6, 6))


class Model(nn.Module):
    """Two convolutions; pads: whether zeros are put around by a layer of their own."""

    def __init__(self, activation, pads):
        super().__init__()
        self.pad = nn.ZeroPad2d(1) if pads else nn.Identity()
        for name, kernel in KERNELS.items():
            layer = nn.Conv2d(6, 6, 3, padding=0 if pads else 1, bias=False)
            layer.weight.data = torch.tensor(kernel)
            self.add_module(name, layer)
        self.activation = activation

    def forward(self, x):
        return self.b(self.pad(self.activation(self.a(self.pad(x))))).square().mean()


def run(folder, activation, pads=False):
    model = Model(activation, pads)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = record.torch(folder, model, optimizer, activations=["a", "b"])
    model(torch.tensor(X)).backward()
    optimizer.step()
    recorder.close()
    return folder


@pytest.mark.parametrize("pads", [False, True], ids=["inside", "by itself"])
def test_an_activation_before_a_convolution_is_located_as_far_as_is_known(tmp_path, pads):
    """A padded input cannot be held against one that is not: they part before it, or in it."""
    right = run(tmp_path / "right", torch.tanh)
    assert compare_traces(right, run(tmp_path / "same", torch.tanh, pads)).verdict == "same"
    wrong = run(tmp_path / "wrong", torch.sin, pads)
    for runs in ((right, wrong), (wrong, right)):
        (found,) = compare_traces(*runs).findings
        assert found.modules == ("a", "b")
        assert ("or before: what it gets has another size" in found.said) == pads
