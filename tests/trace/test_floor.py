"""What is taken for rounding in a gradient: by digits and tensors, or by a run recorded twice."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lockstep import record
from lockstep.record.writer import Writer
from lockstep.trace import TraceError, compare_traces, read
from lockstep.trace.floor import digits, dtype_of
from lockstep.trace.words import text

torch = pytest.importorskip("torch")

ROWS, WORDS, WIDTH, CLASSES = 24, 6, 16, 12
NUMBERS = np.random.default_rng(11)
DATA = [
    (NUMBERS.integers(0, 4000, (ROWS, WORDS)), NUMBERS.integers(0, CLASSES, ROWS)) for _ in range(6)
]


class Model(torch.nn.Module):
    """An embedding, whose length says nothing of its rounding, and two layers with GELU."""

    def __init__(self, words: int, gelu: str, split: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(words, WIDTH)
        self.hidden = torch.nn.Linear(WIDTH, 4 * WIDTH)
        self.head = torch.nn.Linear(4 * WIDTH, CLASSES)
        self.gelu, self.split = gelu, split

    def forward(self, x: Any) -> Any:
        x = self.words(x).mean(1)
        if self.split:
            parts = zip(
                x.split(WIDTH // 2, 1), self.hidden.weight.split(WIDTH // 2, 1), strict=True
            )
            x = sum(part @ weight.T for part, weight in parts) + self.hidden.bias
        else:
            x = self.hidden(x)
        return self.head(torch.nn.functional.gelu(x, approximate=self.gelu))


def train(
    folder: Path,
    half: Any = None,
    dtype: Any = torch.float32,
    gelu: str = "none",
    split: bool = False,
    turned: bool = False,
    backwards: bool = False,
    weights: tuple[float, float] = (0.5, 0.5),
    words: int = 4000,
    data: Any = DATA,
    small: float = 1.0,
) -> Path:
    """Three updates of two micro-batches; split: it sums up otherwise, as another framework does.

    turned: the rows of a micro-batch are in another order, backwards: the micro-batches are. small:
    what the embedding is multiplied with.
    """
    model = Model(words, gelu, split).to(dtype)
    model.words.weight.data *= small
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = record.torch(folder, model, optimizer)
    for update in range(3):
        window = list(zip(data[2 * update : 2 * update + 2], weights, strict=True))
        for (x, y), weight in window[::-1] if backwards else window:
            rows = np.arange(ROWS)[:: -1 if turned else 1].copy()
            with torch.autocast("cpu", half, enabled=half is not None):
                outputs = model(torch.from_numpy(x[rows] % words))
            loss = torch.nn.functional.cross_entropy(
                outputs.to(dtype if half is None else torch.float32), torch.from_numpy(y[rows])
            )
            (loss * weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    recorder.close()
    return folder


@pytest.mark.parametrize(
    ("dtype", "count"),
    [(ml_dtypes.bfloat16, 8), (np.float16, 11), (np.float32, 24), (np.float64, 53)],
)
def test_numbers_have_the_digits_of_their_dtype_in_a_wider_one(dtype, count):
    numbers = np.random.default_rng(0).standard_normal(500).astype(dtype).astype(np.float64)
    assert list(digits([numbers, numbers[:9], 1024 * numbers, 0 * numbers])) == [count, count]


@pytest.mark.parametrize(("size", "dtype"), [(1.0, "bfloat16"), (1e-8, "float32")])
def test_what_is_left_of_a_sum_that_cancels_has_few_digits_and_tells_nothing(size, dtype, tmp_path):
    numbers = np.random.default_rng(1).standard_normal((2, 100)).astype(np.float32)
    few = (size * numbers[1]).astype(ml_dtypes.bfloat16).astype(np.float32)
    writer = Writer(tmp_path / "run", "jax")
    writer.run({"parameters": [{"name": name, "shape": [100]} for name in ("kernel", "bias")]})
    arrays = {"before|kernel": numbers[0], "before|bias": numbers[0]}
    writer.update(1, arrays | {"gradient.0|kernel": numbers[0], "gradient.0|bias": few}, {})
    assert dtype_of(read(tmp_path / "run")) == dtype


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_gradients_more_and_is_no_other_model(half, tmp_path):
    """The parameters are float32, and so is what is written: digits alone show it."""
    right = train(tmp_path / "right", half)
    name = str(half).removeprefix("torch.")
    for port in (train(tmp_path / "split", half, split=True), train(tmp_path / "whole")):
        for found in (compare_traces(right, port), compare_traces(port, right)):
            assert found.verdict == "same", found
            assert len(found.pairs) >= 2
            assert found.floor is not None
            assert found.floor.said == f"{name}, 5 tensors"
            assert any(name in note for note in found.notes) == (port.name == "whole")
    wrong = train(tmp_path / "wrong", half, split=True, weights=(0.75, 0.25))
    found = compare_traces(right, wrong)
    assert found.verdict == "differs"
    # A weight is read off gradients that are themselves 1 % off in bfloat16.
    np.testing.assert_allclose(
        [pair.coefficient.value for pair in found.pairs[:2]], [1.5, 0.5], rtol=0.02
    )


def test_a_long_embedding_hides_no_other_activation(tmp_path):
    right, same = train(tmp_path / "right"), train(tmp_path / "same", split=True)
    found = compare_traces(right, same)
    assert found.verdict == "same", found
    assert "(float32, 5 tensors), of which less than a tenth is seen\n" in text(found)
    assert len(found.pairs) == 6
    other = compare_traces(right, train(tmp_path / "other", gelu="tanh"))
    assert other.names == ("another gradient",)
    assert other.first.update == 1


def test_a_run_recorded_twice_shows_what_rounding_does(tmp_path):
    """What a run of fewer digits shows is the rounding of one that was said to have more."""
    right, rough = train(tmp_path / "right"), train(tmp_path / "rough", torch.bfloat16)
    # A machine whose float32 products are of fewer digits, which nothing but this shows.
    for update in rough.iterdir():
        hide_digits(update)
    assert compare_traces(right, rough).names == ("another gradient",)
    found = compare_traces(rough, right, again=train(tmp_path / "more", dtype=torch.float64))
    assert found.verdict == "same", found
    assert found.floor.said == "4 times what more shows of it, in float64"
    assert 1e-3 < found.floor.relative < 1e-1
    # It shows less than what is derived: a port may round more.
    found = compare_traces(right, rough, again=train(tmp_path / "turned", turned=True))
    assert found.names == ("another gradient",)
    assert found.floor.said == "float32, 5 tensors"


def test_a_run_in_more_digits_shows_what_is_less_than_rounding_may_be(tmp_path):
    """Near 0 both GELUs are nearly one: what is seen of their difference might be rounding."""
    right, same, other, more = (
        train(tmp_path / name, small=0.08, **settings)
        for name, settings in {
            "right": {}, "same": {"split": True}, "other": {"gelu": "tanh"},
            "more": {"dtype": torch.float64},
        }.items()
    )  # fmt: skip
    found = compare_traces(right, other)
    assert found.verdict == "same"
    assert found.floor.relative / 4 < found.seen < found.floor.relative
    share = found.seen / found.floor.relative
    assert f"(float32, 5 tensors), of which {share:.0%} is seen\n" in text(found)
    assert compare_traces(right, other, again=more).names == ("another gradient",)
    found = compare_traces(right, same, again=more)
    assert found.verdict == "same"
    assert found.floor.said == "16 times what more shows of it, in float64"
    assert 0 < found.seen < found.floor.relative / 4


def hide_digits(file: Path) -> None:
    """Give the gradients of an update digits that they did not have."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from lockstep.record.writer import CHECKSUM, FACTS, checksum

    if not file.name.startswith("update"):
        return
    arrays = load_file(file)
    with safe_open(file, "np") as opened:
        facts = opened.metadata()[FACTS]
    numbers = np.random.default_rng(0)
    for name, array in arrays.items():
        if name.startswith("gradient."):
            small = 1 + 1e-6 * numbers.standard_normal(array.shape)
            arrays[name] = np.asarray(array * small.astype(array.dtype), order="C")
    save_file(arrays, file, {FACTS: facts, CHECKSUM: checksum(facts, arrays)})


def test_what_is_not_the_run_once_more_measures_nothing(tmp_path):
    right = train(tmp_path / "right")
    others = {
        "bfloat16": train(tmp_path / "half", torch.bfloat16),
        "the very gradients": train(tmp_path / "backwards", backwards=True),  # a + b is b + a
        "gradients differ by": train(tmp_path / "others", data=DATA[::-1]),
        "parameters differ": train(tmp_path / "short", words=3000),
    }
    for said, again in others.items():
        with pytest.raises(TraceError, match=said) as raised:
            compare_traces(right, right, again=again)
        assert "\n" not in str(raised.value)
