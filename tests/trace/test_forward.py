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
    """Two convolutions; pad: a layer of its own that pads; mode: how they pad otherwise."""

    def __init__(self, activation, pad, mode):
        super().__init__()
        self.pad = pad or nn.Identity()
        for name, kernel in KERNELS.items():
            layer = nn.Conv2d(6, 6, 3, padding=0 if pad else 1, padding_mode=mode, bias=False)
            layer.weight.data = torch.tensor(kernel)
            self.add_module(name, layer)
        self.activation = activation

    def forward(self, x):
        return self.b(self.pad(self.activation(self.a(self.pad(x))))).square().mean()


def run(folder, activation, pad=None, mode="zeros"):
    model = Model(activation, pad, mode)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = record.torch(folder, model, optimizer, activations=["a", "b"])
    model(torch.tensor(X)).backward()
    optimizer.step()
    recorder.close()
    return folder


@pytest.mark.parametrize(
    ("mode", "pad"),
    [("zeros", None), ("zeros", nn.ZeroPad2d(1)), ("reflect", nn.ReflectionPad2d(1))],
    ids=["inside", "by itself", "by itself, and not with zeros"],
)
def test_an_activation_before_a_convolution_is_located_as_far_as_is_known(tmp_path, mode, pad):
    """A padded input is known by what is inside of the zeros around it, and of nothing else."""
    right = run(tmp_path / "right", torch.tanh, mode=mode)
    same = run(tmp_path / "same", torch.tanh, pad, mode)
    assert compare_traces(right, same).verdict == "same"
    wrong = run(tmp_path / "wrong", torch.sin, pad, mode)
    for runs in ((right, wrong), (wrong, right)):
        (found,) = compare_traces(*runs).findings
        assert found.modules == ("a", "b")
        if mode == "zeros":
            assert "the forward passes part between a and b" in found.said
        else:
            assert "or before: what it gets has another size" in found.said


@pytest.mark.parametrize(
    ("pad", "mode", "said"),
    [
        (None, "reflect", "it pads its input with its reflection instead of zeros"),
        (None, "circular", "it pads its input with its other end instead of zeros"),
        (nn.ZeroPad2d((0, 2, 0, 2)), "zeros", "begins (0, 0) ahead of its input instead of (1, 1)"),
    ],
)
def test_what_a_convolution_pads_with_and_where_is_named(tmp_path, pad, mode, said):
    right = run(tmp_path / "right", torch.tanh)
    wrong = run(tmp_path / "wrong", torch.tanh, pad, mode)
    (found,) = compare_traces(right, wrong).findings
    assert (found.name, found.modules) == ("convolution-padding", ("a",))
    assert said in found.said


class Layer(nn.Linear):
    """A dense layer with its activation inside, as Keras has it."""

    activation = staticmethod(torch.relu)

    def forward(self, x):
        return self.activation(super().forward(x))


class Tanh(Layer):
    activation = staticmethod(torch.tanh)


class Dense(nn.Module):
    """Three layers; kind: the first one's, whose activation may be inside; scale: of its output."""

    def __init__(self, kind=nn.Linear, scale=1.0, outside=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = kind(6, 8), nn.Linear(8, 8)
        self.third = nn.Linear(8, 3)
        self.outside, self.scale = outside if kind is nn.Linear else nn.Identity(), scale

    def forward(self, x):
        hidden = torch.tanh(self.second(self.outside(self.first(x))) * self.scale)
        return self.third(hidden)


def trained(folder, **given):
    model = Dense(**given)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record.torch(folder, model, optimizer, activations=True):
        x = torch.tensor(X[..., 0, :])
        model.double()(x).square().mean().backward()
        optimizer.step()
    return folder


def test_an_activation_inside_of_a_layer_is_no_difference_of_its_own(tmp_path):
    outside = trained(tmp_path / "outside"), trained(tmp_path / "scaled", scale=2.0)
    inside = (
        trained(tmp_path / "inside", kind=Layer),
        trained(tmp_path / "inside, scaled", kind=Layer, scale=2.0),
    )
    assert compare_traces(outside[0], inside[0]).verdict == "same"
    for runs in ((outside[0], inside[1]), (inside[0], outside[1]), (inside[1], outside[0])):
        (found,) = compare_traces(*runs).findings
        assert found.modules == ("second", "third")


def test_another_activation_is_named_wherever_it_stands(tmp_path):
    runs = {
        "ReLU": (trained(tmp_path / "a"), trained(tmp_path / "b", kind=Layer)),
        "tanh": (trained(tmp_path / "c", outside=torch.tanh), trained(tmp_path / "d", kind=Tanh)),
    }
    told = 0
    for right, wrong in (("ReLU", "tanh"), ("tanh", "ReLU")):
        for first in runs[right]:
            for second in runs[wrong]:
                (found,) = compare_traces(first, second).findings
                assert found.name == "activation"
                assert f"it has {wrong}, and {right} is right, behind first" in found.said
                told += 1
    assert told == 8


class Twice(nn.Module):
    """A layer that sees two views, in a call for each or in one for both."""

    def __init__(self, together):
        super().__init__()
        self.layer, self.together = nn.Linear(6, 6), together
        nn.init.eye_(self.layer.weight)
        nn.init.constant_(self.layer.bias, 0.5)

    def forward(self, views):
        outputs = self.layer(torch.cat(views)) if self.together else self.layer(views[0])
        return outputs.square().mean()


def test_batches_that_are_put_together_for_one_call_are_told(tmp_path):
    """What a module gets is of another size; that is no difference of the loss."""
    views = [torch.tensor(x, dtype=torch.float32) for x in NUMBERS.normal(size=(2, 4, 6))]
    for name, together in (("apart", False), ("together", True)):
        model = Twice(together)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with record.torch(tmp_path / name, model, optimizer, activations=["layer"]):
            model(views).backward()
            optimizer.step()
    for runs, said in (
        (
            ("apart", "together"),
            "of (8, 6), in which that of the first run, of (4, 6), is one part",
        ),
        (("together", "apart"), "of (4, 6), which is one part of that of the first run, of (8, 6)"),
    ):
        found = compare_traces(*(tmp_path / name for name in runs))
        (first,) = (each for each in found.findings if each.name == "another gradient")
        assert (first.modules, said in first.said) == (("layer",), True), first
