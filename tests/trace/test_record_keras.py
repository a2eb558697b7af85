"""What a recorder writes of a run in Keras, and that it changes nothing."""

import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

import lockstep.record  # noqa: E402
import lockstep.trace  # noqa: E402
from benchmarks.real import common  # noqa: E402
from benchmarks.real import keras as real  # noqa: E402
from lockstep.record.writer import (  # noqa: E402
    STATISTICS,
    RecordError,
    fingerprint,
    norm,
    sketch,
)
from lockstep.trace.averaging import kept  # noqa: E402
from lockstep.trace.steps import steps as steps_of  # noqa: E402

MODES = ("eager", "graph", "jit")
BATCHES, SIZE = 8, 4


def read(folder: Path) -> tuple[dict, list[tuple[dict, dict]]]:
    """A trace: its facts, and each update's facts and arrays."""
    updates = []
    for path in sorted(folder.glob("update-*")):
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            updates.append((json.loads(file.metadata()["lockstep"]), arrays))
    return json.loads((folder / "trace.json").read_text()), updates


def small(width=4) -> "keras.Model":
    keras.utils.set_random_seed(0)
    inner = keras.layers.Dense(width, activation="tanh", name="inner")
    return keras.Sequential(
        [keras.Input((3,)), inner, keras.layers.Dense(2, name="outer")], name="small"
    )


def data() -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(0)
    shapes = (BATCHES * SIZE, 3), (BATCHES * SIZE, 2)
    return tuple(numbers.standard_normal(shape).astype("float32") for shape in shapes)


def fit(optimizer, folder=None, mode="eager", model=None, epochs=1, **options) -> dict:
    """Fit a small model; return its values, and the optimizer's."""
    model = model or small()
    model.compile(
        optimizer=optimizer, loss="mse", run_eagerly=mode == "eager", jit_compile=mode == "jit"
    )
    callbacks = [lockstep.record.keras(folder, model, **options)] if folder else []
    x, y = data()
    model.fit(x, y, SIZE, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0)
    variables = [*model.variables, *optimizer.variables]
    return {f"{index} {each.path}": each.numpy() for index, each in enumerate(variables)}


def loop(optimizer, folder=None, mode="eager", model=None, spoiled=(), **options) -> dict:
    """Train in a loop of one's own."""
    model = model or small()
    if folder:
        recorder = lockstep.record.keras(folder, model, optimizer=optimizer, **options)
    x, y = data()

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables))

    run_step = step if mode == "eager" else tf.function(step, jit_compile=mode == "jit")
    for batch in range(BATCHES):
        rows = slice(batch * SIZE, (batch + 1) * SIZE)
        factor = np.float32(np.inf if batch in spoiled else 1)
        run_step(tf.constant(x[rows] * factor), tf.constant(y[rows]))
        if folder and mode != "eager":
            recorder.update()
    variables = [*model.variables, *optimizer.variables]
    return {f"{index} {each.path}": each.numpy() for index, each in enumerate(variables)}


def same(one: dict, other: dict) -> bool:
    values = zip(one.values(), other.values(), strict=True)
    return all(np.array_equal(each, that) for each, that in values)


def adam(**settings) -> "keras.Optimizer":
    return keras.optimizers.Adam(0.01, **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train", [fit, loop])
def test_a_recorder_changes_no_bit(tmp_path, train, mode) -> None:
    # Two updates are whole, two sketched: that is four programs where all are compiled.
    settings = {"global_clipnorm": 0.1, "weight_decay": 0.1, "gradient_accumulation_steps": 2}
    recorded = train(adam(**settings), tmp_path / "run", mode, full=2)
    assert same(recorded, train(adam(**settings), mode=mode))
    facts, updates = read(tmp_path / "run")
    assert len(updates) == BATCHES // 2
    check(facts, updates, clip=0.1)


def check(facts, updates, clip) -> None:
    """What one phase says of another."""
    names = [each["name"] for each in facts["parameters"]]
    layers = ("inner", "outer")
    assert names == [f"small/{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    for index, (known, arrays) in enumerate(updates):
        assert len(known["micro_batches"]) == 2
        clipped = {name: arrays[f"clipped|{name}"] for name in names}
        for name in names:
            mean = (arrays[f"gradient.0|{name}"] + arrays[f"gradient.1|{name}"]) / 2
            np.testing.assert_allclose(arrays[f"accumulated|{name}"], mean, rtol=1e-5, atol=1e-7)
            if index:
                assert np.array_equal(
                    arrays[f"before|{name}"],
                    shrunk(updates[index - 1][1][f"after|{name}"], arrays, name),
                )
            assert f"state.momentum|{name}" in arrays
            assert known["rates"][name] == pytest.approx(0.01)
            assert known["decays"][name] == pytest.approx(0.1)
        if not known["sizes"]:
            total = np.sqrt(sum(np.sum(value.astype("float64") ** 2) for value in clipped.values()))
            assert total == pytest.approx(clip, rel=1e-5)
        assert arrays["state.iteration|"] == 2 * (index + 1)


def shrunk(before, arrays, name) -> np.ndarray:
    """An array as the other update has it: whole, or a sketch."""
    return before if before.shape == arrays[f"before|{name}"].shape else sketch(before)


def test_losses_and_data_are_those_of_each_batch(tmp_path) -> None:
    for train in (fit, loop):
        train(keras.optimizers.SGD(0.0), tmp_path / train.__name__, "graph")
    x, y = data()
    model = small()
    for train in (fit, loop):
        for index, (facts, _) in enumerate(read(tmp_path / train.__name__)[1]):
            rows = slice(index * SIZE, (index + 1) * SIZE)
            loss = float(np.mean((model(x[rows]).numpy() - y[rows]) ** 2))
            (micro_batch,) = facts["micro_batches"]
            assert micro_batch["loss"] == pytest.approx(loss, rel=1e-5)
            if train is fit:
                found = [each["sum"] for each in micro_batch["data"]]
                assert found == [float(each[rows].astype("float64").sum()) for each in (x, y)]


@pytest.mark.parametrize("mode", MODES)
def test_a_sketch_has_the_norm_of_what_is_clipped(tmp_path, mode) -> None:
    fit(adam(), tmp_path / "whole", mode, small(400), full=100)
    fit(adam(), tmp_path / "sketch", mode, small(400), full=0)
    pairs = zip(read(tmp_path / "whole")[1], read(tmp_path / "sketch")[1], strict=True)
    for (_, whole), (facts, sketched) in pairs:
        assert whole.keys() == sketched.keys()
        for name, array in whole.items():
            assert np.array_equal(sketch(array), sketched[name]), name
            if array.size > 1:
                # All of a parameter or a state would be read for nobody.
                known = facts["sizes"][name]
                assert (known is not None) or not name.startswith("accumulated|")
                if known is not None:
                    assert known == pytest.approx(norm(array), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("mode", MODES)
def test_an_update_that_is_not_finite_is_skipped_and_counted(tmp_path, mode) -> None:
    def scaled() -> "keras.Optimizer":
        return keras.optimizers.LossScaleOptimizer(adam(), initial_scale=1024.0)

    recorded = loop(scaled(), tmp_path / "run", mode, spoiled=(0, 3, 4))
    assert same(recorded, loop(scaled(), mode=mode, spoiled=(0, 3, 4)))
    _, updates = read(tmp_path / "run")
    assert [known.get("skipped", 0) for known, _ in updates] == [1, 0, 2, 0, 0]
    assert [known["loss_scale"] for known, _ in updates] == [512, 512, 128, 128, 128]
    for index, (_, arrays) in enumerate(updates):
        # Unscaled: as small as the momentum that it goes into.
        gradient = arrays["gradient.0|small/inner/kernel"]
        if index == 0:
            momentum = arrays["state.momentum|small/inner/kernel"]
            np.testing.assert_allclose(gradient * (1 - 0.9), momentum, rtol=1e-4)
        assert arrays["state.iteration|"] == index + 1


def by_hand(folder, divisors=(4, 4, 2)) -> None:
    """Add up gradients in a loop of one's own, of which the optimizer gets the sum alone."""
    model, optimizer = small(), adam()
    (x, y), variables = data(), model.trainable_variables
    batches = iter(range(10))
    with lockstep.record.keras(folder, model, optimizer=optimizer) as recorder:
        for window, divisor in zip((4, 4, 2), divisors, strict=True):
            total = [tf.zeros_like(each) for each in variables]
            for start in (next(batches) * 3 for _ in range(window)):
                rows = slice(start, start + 3)
                recorder.data(x[rows], y[rows])
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(x[rows]) - y[rows]) ** 2) / divisor
                gradients = tape.gradient(loss, variables)
                total = [one + more for one, more in zip(total, gradients, strict=True)]
            optimizer.apply(total, variables)


def test_a_loop_that_adds_up_by_itself_shows_the_data_of_each_micro_batch(tmp_path) -> None:
    by_hand(tmp_path / "right")
    _, updates = read(tmp_path / "right")
    assert [len(facts["micro_batches"]) for facts, _ in updates] == [4, 4, 2]
    assert all(len(each["data"]) == 2 for facts, _ in updates for each in facts["micro_batches"])
    assert not any(key.startswith("gradient.") for _, arrays in updates for key in arrays)
    for divisors, name in (
        ((4, 4, 2), ()),
        ((4, 4, 4), ("leftover-divided-by-k",)),
        ((1, 1, 1), ("no-divide",)),
    ):
        by_hand(tmp_path / f"{divisors}", divisors)
        found = lockstep.trace.compare_traces(tmp_path / "right", tmp_path / f"{divisors}")
        assert found.names == name


def test_rules_that_clip_and_decay_are_seen(tmp_path) -> None:
    settings = {"clipnorm": 0.01, "clipvalue": 0.01, "global_clipnorm": 0.01}
    for name, value in settings.items():
        optimizer = adam(weight_decay=0.1, **{name: value})
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        fit(optimizer, tmp_path / name, "graph")
        facts, updates = read(tmp_path / name)
        for known, arrays in updates:
            decays = known["decays"]
            assert decays["small/inner/bias"] == 0
            assert decays["small/inner/kernel"] == 0.1
            gradient, clipped = (
                arrays[f"{phase}|small/inner/kernel"] for phase in ("accumulated", "clipped")
            )
            assert not np.array_equal(gradient, clipped)
            norm = np.linalg.norm(clipped)
            assert np.abs(clipped).max() <= 0.01001 if name == "clipvalue" else norm <= 0.01001
        groups = facts["optimizers"][0]["groups"]
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
        assert (groups[0][name], groups[0]["beta_1"]) == (0.01, 0.9)


def test_an_average_frozen_and_embedded_parameters_are_seen(tmp_path) -> None:
    def model() -> "keras.Model":
        keras.utils.set_random_seed(0)
        frozen = keras.layers.Dense(3, name="frozen", trainable=False)
        embedding = keras.layers.Embedding(5, 3, name="embedding")
        flat = keras.layers.Flatten(name="flat")
        outer = keras.layers.Dense(2, name="outer")
        return keras.Sequential([keras.Input((3,)), embedding, frozen, flat, outer], name="bag")

    def train(folder=None, mode="eager"):
        network, optimizer = model(), adam(use_ema=True, ema_overwrite_frequency=3)
        network.compile(optimizer, "mse", run_eagerly=mode == "eager", jit_compile=mode == "jit")
        callbacks = [lockstep.record.keras(folder, network)] if folder else []
        x = np.tile([[1, 1, 2]], (12, 1))
        network.fit(x, data()[1][:12], 3, callbacks=callbacks, shuffle=False, verbose=0)
        return {each.path: each.numpy() for each in [*network.variables, *optimizer.variables]}

    for mode in MODES:
        assert same(train(tmp_path / mode, mode), train(mode=mode))
        facts, updates = read(tmp_path / mode)
        trainable = {each["name"]: each["trainable"] for each in facts["parameters"]}
        assert not trainable["bag/frozen/kernel"]
        assert trainable["bag/embedding/embeddings"]
        for _, arrays in updates:
            rows = np.abs(arrays["gradient.0|bag/embedding/embeddings"]).sum(1) > 0
            assert rows.tolist() == [False, True, True, False, False]
            assert "gradient.0|bag/frozen/kernel" not in arrays
            assert "state.average|bag/outer/bias" in arrays
        # Every third update, the average takes the parameters' place.
        third = updates[2][1]
        after, average = (third[f"{name}|bag/outer/bias"] for name in ("after", "state.average"))
        assert np.array_equal(after, average)


@pytest.mark.parametrize("steps", [None, 2])
def test_keras_takes_its_average_at_every_micro_step(tmp_path, steps) -> None:
    fit(adam(use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=steps), tmp_path, full=9)
    every = kept(steps_of(lockstep.trace.read(tmp_path)))
    # In the first update it is a copy of the parameters, towards which it goes unseen.
    found = {update: each for update, each in every.items() if each.seen}
    assert set(found) == set(range(2, BATCHES // (steps or 1)))
    assert all(each.left.equals(0.9 ** (steps or 1)) for each in found.values())


def test_rates_are_those_that_were_used(tmp_path) -> None:
    table = keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], [0.3, 0.2, 0.1])
    optimizer = keras.optimizers.SGD(table, gradient_accumulation_steps=2)
    fit(optimizer, tmp_path / "run", "graph")
    rates = [known["rates"]["small/inner/bias"] for known, _ in read(tmp_path / "run")[1]]
    # Keras' schedules count micro-batches: an update has the rate of its last.
    assert rates == pytest.approx([0.3, 0.2, 0.2, 0.1])


def test_state_before_is_there_where_no_update_left_it(tmp_path) -> None:
    fit(adam(), tmp_path / "run", "graph", model=small(400), full=1, at=(5,))
    _, updates = read(tmp_path / "run")
    has = [any(name.startswith("state-before.") for name in arrays) for _, arrays in updates]
    assert has == [True, False, False, False, True, False, False, False]
    left = updates[3][1]["state.velocity|small/inner/kernel"]
    before = updates[4][1]["state-before.velocity|small/inner/kernel"]
    assert np.array_equal(sketch(before), left)


def test_what_cannot_be_recorded_is_refused_in_one_line(tmp_path) -> None:
    model = small()
    model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(RecordError, match=r"^steps_per_execution > 1 .* compile the model with 1$"):
        model.fit(*data(), callbacks=[lockstep.record.keras(tmp_path / "1", model)], verbose=0)
    other = small()
    other.compile("sgd", "mse")
    with pytest.raises(RecordError, match="another model"):
        other.fit(*data(), callbacks=[lockstep.record.keras(tmp_path / "2", model)], verbose=0)
    with pytest.raises(RecordError, match=r"optimizer=\.\.\."):
        lockstep.record.keras(tmp_path / "3", small()).update()
    optimizer = keras.optimizers.SGD(0.1)
    recorder = lockstep.record.keras(tmp_path / "4", model, optimizer=optimizer)
    apply = tf.function(lambda: optimizer.apply(gradients, model.trainable_variables))
    gradients = [tf.ones(variable.shape) for variable in model.trainable_variables]
    apply()
    apply()
    with pytest.raises(RecordError, match=r"after each call of a tf\.function"):
        recorder.update()


DENSE = {
    "mlp": ("mlp/hidden", "mlp/middle", "mlp/output"),
    "transformer": ("transformer/inner", "transformer/outer"),
}
ATTENTION = tuple(f"attention/{name}" for name in ("query", "key", "value", "attention_output"))
RETURNED = {
    "mlp": (*DENSE["mlp"], ""),
    "transformer": (
        *(f"transformer/{name}" for name in ("embedding", "positions", "norm1", *ATTENTION)),
        *(f"transformer/{name}" for name in ("attention", "norm2", "inner", "outer", "norm3")),
        "",  # the whole model
    ),
}


# In a loop of one's own that is compiled, no layer is seen.
SEEN = [(False, "eager"), (True, "eager"), (True, "graph"), (True, "jit")]
COMPILED = {("transformer", "graph"), ("transformer", "jit")}


@pytest.mark.parametrize(
    ("model", "through_fit", "mode"),
    [
        pytest.param(model, *seen, marks=[pytest.mark.slow] * ((model, seen[1]) in COMPILED))
        for model in DENSE
        for seen in SEEN
    ],
)
def test_what_layers_make_of_the_data_is_kept_in_whole_updates(
    tmp_path, model, through_fit, mode
) -> None:
    settings = {"updates": 2, "mode": mode, "fit": through_fit}
    recorded = real.run(tmp_path / "run", model, "float64", 2, full=1, activations=True, **settings)
    assert same(recorded, real.run(None, model, "float64", 2, record=False, **settings))
    _, ((first, arrays), (second, sketched)) = read(tmp_path / "run")
    assert tuple(first["modules"]) == RETURNED[model]
    assert "modules" not in second
    assert not any(name.startswith(("input.", "output.", "data.")) for name in sketched)
    for phase in ("input", "output"):
        assert {f"{phase}.0|{name}" for name in RETURNED[model]} <= arrays.keys()
    if model == "transformer":
        assert np.array_equal(
            arrays["input.0|transformer/attention"], arrays["input.0.1|transformer/attention"]
        )
    for name in DENSE[model]:
        kernel, bias = (arrays[f"before|{name}/{kind}"] for kind in ("kernel", "bias"))
        expected = arrays[f"input.0|{name}"] @ kernel + bias
        np.testing.assert_allclose(arrays[f"output.0|{name}"], expected, atol=1e-12)
    for index, known in enumerate(first["micro_batches"][0]["data"]):
        assert fingerprint(arrays[f"data.0|{index}"]) == known
    (x, y), _ = common.windows(model, "float64", 2, 2)[0]
    assert np.array_equal(arrays["data.0|0"], x)
    assert np.array_equal(arrays["data.0|1"], y)


def test_a_layer_that_is_called_again_is_kept_as_it_was_first_called(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    inputs, twice = keras.Input((3,)), keras.layers.Dense(3, activation="tanh", name="twice")
    model = keras.Model(inputs, keras.layers.Dense(2, name="outer")(twice(twice(inputs))))
    loop(adam(), tmp_path / "run", "eager", model, activations=["twice"])
    x = data()[0]
    for index, (known, arrays) in enumerate(read(tmp_path / "run")[1][:3]):
        rows = slice(index * SIZE, (index + 1) * SIZE)
        assert known["modules"] == ["twice"]
        assert np.array_equal(arrays["input.0|twice"], x[rows])
        # Nobody has said what the data are: the model was called with them.
        assert np.array_equal(arrays["data.0|0"], x[rows])
        assert known["micro_batches"][0]["data"] == [fingerprint(x[rows])]
        assert {name for name in arrays if "put.0" in name} == {"input.0|twice", "output.0|twice"}


# Compiled by XLA, this model shows that the recorder changes bits without activations too.
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_looking_at_layers_that_are_fused_or_have_a_state_changes_no_bit(tmp_path, mode) -> None:
    def model() -> "keras.Model":
        keras.utils.set_random_seed(0)
        layers = keras.layers
        # Grappler makes one operation of several here; dropout draws, statistics move.
        inner = (layers.Dense(33), layers.ReLU(), layers.Dense(17), layers.Activation("gelu"))
        rest = (layers.Dropout(0.3, seed=1), layers.BatchNormalization(), layers.Dense(2))
        return keras.Sequential([keras.Input((3,)), *inner, *rest])

    settings = {"gradient_accumulation_steps": 2}
    recorded = fit(adam(**settings), tmp_path / "run", mode, model(), full=2, activations=True)
    assert same(recorded, fit(adam(**settings), mode=mode, model=model()))
    facts, each = read(tmp_path / "run")
    kept = [any("put.0" in name for name in arrays) for _, arrays in each]
    assert kept == [True, True, False, False]
    assert STATISTICS in facts["notes"]


def test_what_is_no_training_is_not_looked_at(tmp_path) -> None:
    model, optimizer = small(), adam()
    recorder = lockstep.record.keras(
        tmp_path / "run", model, optimizer=optimizer, full=9, activations=True
    )
    x, y = data()
    for rows in (slice(0, 4), slice(4, 8)):
        model(x[8:])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x[rows], training=True) - y[rows]) ** 2)
        recorder.data(x[rows], y[rows])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    for index, (_, arrays) in enumerate(read(tmp_path / "run")[1]):
        assert np.array_equal(arrays["input.0|small/inner"], x[4 * index : 4 * index + 4])
        assert np.array_equal(arrays["data.0|1"], y[4 * index : 4 * index + 4])


def test_layers_that_cannot_be_looked_at_are_refused_in_one_line(tmp_path) -> None:
    for mode in ("graph", "jit"):
        with pytest.raises(RecordError, match=r"^activations= .*run_functions_eagerly\(True\)$"):
            loop(adam(), tmp_path / mode, mode, activations=True)
    with pytest.raises(RecordError, match=r"^activations: the model has no layer 'third'$"):
        lockstep.record.keras(
            tmp_path / "1", small(), optimizer=adam(), activations=["small/inner", "third"]
        )


@pytest.mark.parametrize("model", common.MODELS)
def test_a_real_run_is_recorded_and_not_changed(tmp_path, model) -> None:
    recorded = real.run(tmp_path / "run", model, "float64", 2, updates=2)
    plain = real.run(None, model, "float64", 2, updates=2, record=False)
    assert same(recorded, plain)
    facts, updates = read(tmp_path / "run")
    assert {each["dtype"] for each in facts["parameters"]} == {"float64"}
    for known, arrays in updates:
        assert [len(each["data"]) for each in known["micro_batches"]] == [2, 2]
        for name, value in recorded.items():
            means = (arrays[f"gradient.0|{name}"] + arrays[f"gradient.1|{name}"]) / 2
            np.testing.assert_allclose(arrays[f"accumulated|{name}"], means, atol=1e-12)
            assert value.shape == arrays[f"after|{name}"].shape
    assert keras.config.floatx() == "float32"


@pytest.mark.parametrize("mode", MODES)
def test_an_optimizer_that_is_first_built_in_fit_begins_empty(tmp_path, mode) -> None:
    """As it is wherever nobody builds it: its state has no value before the first step."""
    for name in ("one", "another"):
        fit(keras.optimizers.Adam(1e-2), tmp_path / name, mode)
    _, updates = read(tmp_path / "one")
    for key, array in updates[0][1].items():
        phase, _, parameter = key.partition("|")
        if phase.startswith("state-before.") and parameter:
            assert array.shape == updates[0][1][f"before|{parameter}"].shape
    found = lockstep.trace.compare_traces(tmp_path / "one", tmp_path / "another")
    assert (found.verdict, found.left) == ("same", [])
    assert found.compared == BATCHES * 26
    assert lockstep.trace.check_trace(tmp_path / "one").verdict == "same"


def test_a_compiled_loop_that_nobody_reads_is_said(tmp_path, capsys) -> None:
    model, optimizer = small(), adam()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    x, y = data()
    recorder = lockstep.record.keras(tmp_path / "run", model, optimizer=optimizer)
    step(x, y)
    lockstep.record.keras_callback.complain(weakref.ref(recorder))
    assert "call recorder.update()" in capsys.readouterr().err
    with pytest.raises(RecordError, match=r"call recorder.update\(\) after each call"):
        recorder.close()
    with lockstep.record.keras(tmp_path / "again", model, optimizer=optimizer) as recorder:
        tf.function(step.python_function)(x, y)
        recorder.update()
    lockstep.record.keras_callback.complain(weakref.ref(recorder))
    assert capsys.readouterr().err == ""
    assert len(read(tmp_path / "again")[1]) == 1
