"""Losses of tokens, some of which are padding: flat, or of the shape that the outputs have."""

import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")
nn, cross_entropy = torch.nn, torch.nn.functional.cross_entropy

TOKENS, LENGTH, PAD = 7, 6, 0


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS)

    def forward(self, x):
        return self.out(torch.tanh(self.embed(x)))


def next_tokens(x):
    """Of a language model: the next ones, and padding at the end."""
    return torch.cat([x[:, 1:], torch.full_like(x[:, :1], PAD)], dim=1)


def run(folder, loss):
    torch.manual_seed(0)
    model = Tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record.torch(folder, model, optimizer, activations=True):
        for _ in range(3):
            x = torch.randint(1, TOKENS, (4, LENGTH))
            x[:2, -2:] = PAD
            optimizer.zero_grad()
            loss(model(x), next_tokens(x)).backward()
            optimizer.step()
    return folder


def flat(outputs, y):
    return cross_entropy(outputs.flatten(0, 1), y.flatten(), ignore_index=PAD)


def by_class(outputs, y):
    return cross_entropy(outputs.transpose(1, 2), y, ignore_index=PAD)


def counted(outputs, y):
    return cross_entropy(outputs.transpose(1, 2), y)


def shifted(outputs, y):
    return flat(outputs, next_tokens(y))


@pytest.mark.parametrize(
    ("loss", "names"),
    [(by_class, ()), (counted, ("padding-counted",)), (shifted, ("label-shift",))],
    ids=["the same", "counted", "shifted"],
)
def test_a_loss_is_told_from_one_of_another_shape(tmp_path, loss, names):
    assert compare_traces(run(tmp_path / "a", flat), run(tmp_path / "b", loss)).names == names


def test_the_tokens_that_a_model_gets_are_no_targets_one_place_back(tmp_path):
    def sliced(outputs, y):
        return cross_entropy(outputs[:, :-1].flatten(0, 1), y[:, :-1].flatten())

    found = compare_traces(run(tmp_path / "a", flat), run(tmp_path / "b", sliced))
    assert "label-shift" not in found.names
    assert "in the loss" in found.findings[0].said
