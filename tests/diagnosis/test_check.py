"""`lockstep check`: what a port does, in words, whatever it does."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import lockstep as command
from plain_port import train as right

import lockstep
from lockstep.diagnosis import Report, check, verdict
from lockstep.diagnosis.probes import probes
from lockstep.problem.settings import ProblemError
from lockstep.workers.pool import Worker, WorkerError

SOURCE = Path(__file__).with_name("plain_port.py").read_text()
COVERED = 17  # probes that the port supports
TOGETHER = 5  # and those in which two of these things meet
LAST = "            yield parameters[0], parameters[1]\n"


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    """The plain port with some of its text replaced, as a file."""

    def make(*changes: tuple[str, str]) -> str:
        source = SOURCE
        for old, new in changes:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times"
            source = source.replace(old, new)
        file = tmp_path / "my_port.py"
        file.write_text(source)
        return str(file)

    return make


def names(found: Report) -> list[tuple[str, ...]]:
    return [each.names for each in found.diagnosis.explanations]


def test_a_correct_port_takes_the_same_update(broken) -> None:
    found = check(broken())
    assert (found.verdict, found.status) == ("same", 0)
    # Of plain SGD, and with Adam: adam, clip-adam, untouched.
    assert len(found.diagnosis.runs) == COVERED + TOGETHER
    assert found.compared == sum(
        run.probe.problem.updates * (run.probe.problem.W.size + run.probe.problem.b.size)
        for run in found.diagnosis.runs
    )
    assert found.compared > 900
    assert set(found.refused) == {each.name for each in probes()} - {
        run.probe.name for run in found.diagnosis.runs
    }
    found.assert_same_update()


RESET = "            sums = [np.zeros_like(p) for p in parameters]\n"
MISSING = [
    (RESET, ""),
    ("    update = 0\n", "    update = 0\n    sums = [np.zeros_like(p) for p in parameters]\n"),
    ("sums = [s * min", "clipped = [s * min"),
    (
        "            rate = settings.learning_rate\n",
        "            if problem.max_norm is None:\n                clipped = sums\n"
        "            rate = settings.learning_rate\n",
    ),
    ("enumerate(sums)", "enumerate(clipped)"),
]


def test_a_mistake_is_named(broken) -> None:
    found = check(broken(*MISSING))
    assert (found.verdict, found.status) == ("differs", 1)
    assert names(found) == [("missing-zero-grad",)]
    assert verdict.headline(found) == "makes a known mistake: missing-zero-grad"
    with pytest.raises(AssertionError, match="missing-zero-grad"):
        found.assert_same_update()


BOTH = [
    ("/ examples\n", "/ len(x)\n"),
    ("problem.max_norm / norm", "problem.max_norm / (norm + 1e-6)"),
]


def test_each_of_two_differences_is_named(broken) -> None:
    found = check(broken(*BOTH))
    assert names(found) == [("no-divide", "clip-epsilon")]
    assert not found.diagnosis.left
    assert verdict.headline(found) == "differs in two ways: no-divide and clip-epsilon"


def test_what_is_named_is_named_whatever_is_left(broken) -> None:
    found = check(broken(*BOTH), pairs=False)
    assert names(found) == [("no-divide",)]
    assert all("clip" in part.probe.ingredients for part in found.diagnosis.left)
    assert {"clip", "clip-adam"} <= {part.probe.name for part in found.diagnosis.left}
    assert verdict.headline(found) == (
        "makes a known mistake: no-divide, and a difference of float32 size"
    )
    assert "what these do not explain" in verdict.text(found)


def test_a_difference_of_float32_size_hides_no_other(broken) -> None:
    rate = "* direction)"
    found = check(broken(BOTH[0], *MISSING, (rate, "* direction * (1 + 1e-9))")))
    assert verdict.headline(found) == (
        "differs in two ways: missing-zero-grad and no-divide, and a difference of float32 size"
    )
    found = check(broken((rate, "* direction * (1 + 1e-9))")))
    assert "differs by what is of float32 size" in verdict.headline(found)


def test_a_policy_is_named_as_what_it_is(broken) -> None:
    epsilon = ("problem.max_norm / norm", "problem.max_norm / (norm + 1e-6)")
    found = check(broken(epsilon))
    assert verdict.headline(found) == "follows another policy: clip-epsilon"
    assert found.diagnosis.suspects == ["clip"]
    assert verdict.stage_words(found) == "clipping"


SGD_ALONE = [
    ('not in ("sgd", "adam") or', 'not in ("sgd",) or problem.max_norm or'),
    (RESET, ""),
    ("    update = 0\n", "    update = 0\n    sums = [np.zeros_like(p) for p in parameters]\n"),
]
OFFER = "parameters[0], parameters[1]", "dict(W=parameters[0], b=parameters[1], gradient=sums)"


def test_what_no_probe_separates_is_reported_together(broken) -> None:
    """Not zeroing and momentum 1 have the same parameters, and another gradient."""
    found = check(broken(*SGD_ALONE))
    assert names(found) == [("missing-zero-grad",), ("momentum-one",)]
    assert "missing-zero-grad or momentum-one" in verdict.headline(found)
    assert "missing-zero-grad from momentum-one: yield gradient" in verdict.text(found)
    assert names(check(broken(*SGD_ALONE, (LAST, LAST.replace(*OFFER))))) == [
        ("missing-zero-grad",)
    ]


def test_what_nothing_explains_is_unknown(broken) -> None:
    found = check(broken(("rate * direction", "rate * np.sin(direction)")))
    assert found.verdict == "differs"
    assert found.diagnosis.unknown
    assert "none of the known mistakes" in verdict.text(found)
    first = found.diagnosis.parts[0].first
    assert first is not None
    assert first.update == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rate * direction", "rate * 1.00014159 * direction"), "learning rate times 1.00014159"),
        (("2 * (x @", "2 / 7 * (x @"), "gradient times 1/7"),
        (("= settings.betas", "= settings.betas[0], 0.999"), "beta2 is 0.999 instead of 0.95"),
        (("settings.eps", "0.0123456"), "eps is 0.0123456 instead of 0.05"),
        (("problem.max_norm /", "1.0 /"), "max_norm is 1 instead of 12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_number_is_solved_for(broken, change, said) -> None:
    found = check(broken(change))
    assert names(found)[0] == (said,), verdict.text(found)
    assert not found.diagnosis.left
    assert verdict.headline(found).endswith(f"no known mistake does that: {said}")


def test_an_accumulator_that_is_emptied_now_and_then_is_told(broken) -> None:
    clears = (
        "                sums[0] += x.T @ error\n",
        "                count = getattr(train, 'count', 0)\n"
        "                if count and count % 2 == 0:\n"
        "                    sums = [s * 0 for s in sums]\n"
        "                train.count = (count + 1) % len(problem.micro_batches)\n"
        "                sums[0] += x.T @ error\n",
    )
    start = "    update = 0\n"
    found = check(broken(clears, (start, f"    train.count = 0\n{start}")))
    assert names(found)[0] == ("cleared every 2 micro-batches",), verdict.text(found)


def test_one_ulp_is_no_difference_and_a_thousand_million_are(broken) -> None:
    ulp = ("rate * direction)", "rate * direction * (1 + 2.0**-52))")
    assert check(broken(ulp)).verdict == "same"
    many = ("rate * direction)", "rate * direction * (1 + 2.0**-22))")
    assert check(broken(many), pairs=False).verdict == "differs"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [(LAST, "            yield parameters[0][1:], parameters[1]\n")],
            "W has shape (6, 3), not",
        ),
        ([(LAST, "            yield parameters\n            1 / 0\n")], "ZeroDivisionError"),
        ([(LAST, "            yield parameters[0]\n")], "yielded ndarray instead of (W, b)"),
        ([(LAST, "            yield {'W': parameters[0]}\n")], "the dict must have W and b"),
        ([(LAST, "            yield 'W', 'b'\n")], "is str of"),
        (
            [(LAST, LAST.replace("parameters[0], parameters[1]", "*parameters, {'loss': 'low'}"))],
            "loss must be a number",
        ),
        ([("    update = 0\n", "    return\n")], "yields nothing"),
        ([("    update = 0\n", "    import sys; sys.exit(4)\n")], "SystemExit: 4 (my_port.py:"),
        ([("    update = 0\n", "    import os; os._exit(4)\n")], "exited with status 4"),
        ([("def train(problem):\n", "def training(problem):\n")], "has no function train(problem)"),
        ([("def train(problem):\n", "def train(problem:\n")], "SyntaxError"),
        ([("import numpy as np\n", "import numpy as np, no_such_package\n")], "no_such_package"),
        (
            [
                (
                    "    update = 0\n",
                    "    import time; print('so tired', flush=True); time.sleep(99)\n",
                )
            ],
            "it hangs, or needs a longer --timeout\n  | so tired",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_port_is_told_in_words(broken, changes, said) -> None:
    found = check(broken(*changes), timeout=5 if "hangs" in said else 120)
    assert (found.verdict, found.status) == ("broken", 2)
    assert said in verdict.text(found)
    assert "Traceback" not in verdict.text(found)


def test_an_error_is_told_with_its_line(broken) -> None:
    file = broken((LAST, LAST + "            parameters[0] = parameters[0][:, :1] @ 'x'\n"))
    line = SOURCE.splitlines().index(LAST.rstrip()) + 2
    (failure,) = set(map(str, check(file).failures.values()))
    assert f"(my_port.py:{line}: parameters[0] = parameters[0][:, :1] @ 'x')" in failure


def test_nan_and_too_few_updates_differ(broken) -> None:
    nan = (LAST, "            yield parameters[0] * np.nan, parameters[1]\n")
    found = check(broken(nan), pairs=False)
    assert found.verdict == "differs"
    assert "update 1, W[0, 0]: nan" in verdict.text(found)
    early = (LAST, LAST + "            if update == 2:\n                return\n")
    found = check(broken(early), pairs=False)
    assert found.verdict == "differs"
    assert "2 updates instead of 6" in verdict.text(found)


def test_a_port_without_float64_is_checked_without(broken) -> None:
    refuses = (
        "    settings = problem.optimizer\n",
        "    settings = problem.optimizer\n    if problem.dtype == 'float64':\n"
        "        raise NotImplementedError('no float64')\n",
    )
    found = check(broken(refuses))
    assert (found.verdict, found.dtype) == ("same", "float32")
    assert found.uncovered("wide") == "float32 cannot hold what this is about"
    assert not any(found.fails(each.name) for each in probes() if not found.uncovered(each.name))
    assert len(found.diagnosis.runs) == COVERED - 1 + TOGETHER
    found = check(broken((LAST, LAST.replace("parameters[0]", "parameters[0].astype('f4')"))))
    assert (found.verdict, found.dtype) == ("broken", "float32")
    assert "W is float32, not float64" in verdict.text(found)
    assert "jax_enable_x64" in verdict.text(found)


def test_a_transposed_parameter_is_turned_and_told(broken) -> None:
    found = check(broken((LAST, LAST.replace("parameters[0]", "parameters[0].T"))))
    assert found.verdict == "same"
    assert "note: W came transposed, (3, 7)" in verdict.text(found)


def test_tensors_of_a_graph_are_numbers(broken) -> None:
    tensors = "torch.nn.Parameter(torch.from_numpy({0})) * 1"
    each = ", ".join(tensors.format(f"parameters[{i}]") for i in range(2))
    found = check(broken((LAST, f"            import torch\n            yield {each}\n")))
    assert found.verdict == "same", verdict.text(found)


def test_a_port_that_parses_arguments_has_none(broken, monkeypatch) -> None:
    parses = "import numpy as np\nimport argparse\n\nargparse.ArgumentParser().parse_args()\n"
    file = broken(("import numpy as np\n", parses))
    assert check(file).verdict == "same"
    monkeypatch.chdir(Path(file).parent)
    assert check(Path(file).stem).verdict == "same", "a module, too"


@pytest.mark.parametrize("name", ["Port", "Port.train"])
def test_a_class_is_told_what_to_write_instead(broken, name) -> None:
    file = broken(("import numpy as np\n", "import numpy as np\n\nclass Port: ...\n"))
    found = check(f"{file}:{name}")
    assert found.verdict == "broken"
    assert "write a function train(problem) that uses it" in verdict.text(found)


GUARD = '    if not problem.uses_only("learning_rates", "max_norm"):\n'
UNREAD = [(GUARD, "    if problem.schedule or problem.loss_scale or problem.example_weights:\n")]


def test_a_setting_that_is_never_read_is_a_difference(broken) -> None:
    found = check(broken(*UNREAD), only=["plain", "windows", "partial", "drop", "carry"])
    assert found.verdict == "differs"
    assert names(found) == [("ignores partial_windows",)]
    assert not found.diagnosis.left
    found = check(broken(*UNREAD, *MISSING), only=["plain", "windows", "partial", "drop"])
    assert names(found)[0] == ("missing-zero-grad", "ignores partial_windows")


def test_an_array_that_changes_after_it_was_yielded_is_told(broken) -> None:
    in_place = (
        "parameters[i] = (parameters[i] - rate",
        "parameters[i][...] = (parameters[i] - rate",
    )
    found = check(broken(in_place))
    assert found.verdict == "same"
    assert "yield a copy" in verdict.text(found)


def test_what_a_port_offers_is_compared_too(broken) -> None:
    """A gradient that is right is no alarm, and one that is not is one."""
    offer = LAST.replace(
        "parameters[0], parameters[1]",
        "{'W': parameters[0], 'b': parameters[1], 'gradient': sums, 'learning_rate': rate}",
    )
    found = check(broken((LAST, offer)))
    assert found.verdict == "same"
    assert all(set(run.more) == {"gradient", "learning_rate"} for run in found.diagnosis.runs)
    found = check(
        broken((LAST, offer.replace("'gradient': sums", "'gradient': [sums[0] * 2, sums[1]]")))
    )
    assert found.verdict == "differs"
    assert not found.diagnosis.parts
    assert set(found.diagnosis.differing["plain"]) == {"gradient"}


def test_what_is_compared_with_nothing_is_told(broken) -> None:
    offer = LAST.replace("parameters[0], parameters[1]", "*parameters, {'Loss': 1.0, 'loss': 2}")
    found = check(broken((LAST, offer)))
    assert "it yields Loss, compared with nothing" in verdict.text(found)
    assert set(found.diagnosis.differing["plain"]) == {"loss"}
    flat = LAST.replace("parameters[0], parameters[1]", "*parameters, {'gradient': sums[0]}")
    assert "gradient must be a number, or a pair" in verdict.text(check(broken((LAST, flat))))


def test_a_port_is_imported_once(broken, monkeypatch, tmp_path) -> None:
    file = broken(("import numpy as np\n", "import numpy as np\nprint('imported')\n"))
    monkeypatch.chdir(tmp_path)
    worker, problem, name = Worker("port"), probes()[1].problem, Path(file).name
    worker.train(name, problem)
    worker.train(name, problem)
    with pytest.raises(WorkerError) as failed:
        worker.train(f"{name}:nothing", problem)
    worker.close()
    assert [line for line in failed.value.log if line == "imported"] == ["imported"]


def test_a_function_is_checked_like_its_file() -> None:
    assert lockstep.check(right).port == "plain_port.py:train"
    lockstep.check(right).assert_same_update()

    def closure(problem):
        for W, b in right(problem):
            yield W * 1.5, b

    found = lockstep.check(closure)
    assert found.verdict == "differs"
    lockstep.check(lambda problem: right(problem)).assert_same_update()


def test_only_some_probes_and_another_seed(broken) -> None:
    found = check(broken(), only=["plain", "clip"], seed=3)
    assert [run.probe.name for run in found.diagnosis.runs] == ["plain", "clip"]
    again = check(broken(), only=["plain"], seed=4)
    first, second = (each.diagnosis.runs[0].trajectory[0] for each in (found, again))
    assert (first != second).all()
    with pytest.raises(ProblemError, match="nonsense: no such probe"):
        check(broken(), only=["nonsense"])


def test_the_command_writes_json_and_a_page(broken, tmp_path) -> None:
    file = broken(*MISSING, ("import numpy as np\n", "import numpy as np\nimport torch\n"))
    page, data = tmp_path / "found.html", tmp_path / "found.json"
    done = command("check", file, "--html", str(page), "--json", str(data))
    assert done.returncode == 1, done.stderr
    assert "missing-zero-grad" in done.stdout.splitlines()[0]
    assert "every update also contains the micro-batches of all windows before it" in done.stdout
    found = json.loads(data.read_text())
    assert found["explanations"][0]["mistakes"] == ["missing-zero-grad"]
    assert found["verdict"] == "differs"
    assert np.array(found["coefficients"]).shape == (6, 7)
    text = page.read_text()
    assert "missing-zero-grad" in text
    assert "<polyline" in text
    assert text.count('<table class="matrix">') == 2
    assert "+    optimizer.zero_grad()" in text, "what mends it"
    for outside in ("src=", "<link", "url(", "<script"):
        assert outside not in text, "the page needs nothing else"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "no_such_file.py"], "no such file"),
        (["check", ""], "'': neither a .py file nor a module"),
        (["check", ".."], "..: neither a .py file nor a module"),
        (["check", "plain_port.py", "--html", "/no/such/folder/x.html"], "--html: "),
        (["check", "plain_port.py", "--probes", "nonsense"], "nonsense: no such probe"),
        (["mistakes", "nonsense"], "nonsense: no such mistake"),
        (["run", "-f", "tensorflow", "--mistake", "nonsense"], "nonsense: no such mistake"),
        (
            ["run", "-f", "tensorflow", "--mistake", "missing-zero-grad", "-k", "3"],
            "--mistake takes no problem",
        ),
    ],
)
def test_a_wrong_call_gets_one_line(arguments, said) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr + done.stdout
    assert len((done.stderr + done.stdout).splitlines()) <= 2


def test_the_plugin_makes_each_probe_a_test(tmp_path) -> None:
    (tmp_path / "plain_port.py").write_text(SOURCE)
    (tmp_path / "wrong_port.py").write_text(SOURCE.replace("2 * (x @", "3 * (x @"))
    (tmp_path / "test_ports.py").write_text(
        "import plain_port, wrong_port\n"
        "def test_right(lockstep_probe):\n    lockstep_probe(plain_port.train)\n"
        "def test_wrong(lockstep_probe):\n    lockstep_probe(wrong_port.train)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ports.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    skipped = 2 * (len(probes()) - COVERED)
    # The last of each is about all that it supports, together.
    assert f"{COVERED + 1} failed, {COVERED + 1} passed, {skipped} skipped" in done.stdout
    assert "FAILED test_ports.py::test_wrong[plain]" in done.stdout


def test_a_check_while_a_port_is_imported_starts_no_other(broken) -> None:
    calls = ("import numpy as np\n", "import numpy as np\nimport lockstep\n")
    file = broken(calls, (LAST, LAST + "\n\nlockstep.check(train)\n"))
    found = check(file)
    assert found.verdict == "broken"
    assert 'if __name__ == "__main__"' in verdict.text(found)


def test_whatever_can_be_called_is_checked() -> None:
    class Port:
        def __call__(self, problem):
            return right(problem)

    def leaves(problem):
        raise SystemExit(3)

    check(functools.partial(right)).assert_same_update()
    check(Port()).assert_same_update()
    found = check(leaves)
    assert found.verdict == "broken"
    assert "SystemExit: 3" in verdict.text(found)


def test_what_is_offered_at_times_is_compared_then(broken) -> None:
    offer = "parameters[0], parameters[1], {'gradient': sums} if update % 2 else {}"
    sometimes = LAST.replace("parameters[0], parameters[1]", offer)
    assert check(broken((LAST, sometimes))).verdict == "same"
    wrong = sometimes.replace("sums}", "[sums[0], sums[1] + 1]}")
    assert check(broken((LAST, wrong))).diagnosis.differing["plain"] == ["gradient"]


def test_half_a_loss_is_not_taken_for_a_mean_over_outputs(broken) -> None:
    assert names(check(broken(("2 * (x @", "(x @")))) == [("half-loss",)]
    over = ("/ examples\n", "/ (examples * y.shape[1])\n")
    assert names(check(broken(over))) == [("mean-over-outputs",)]


def test_what_is_not_driven_after_a_hang_is_listed(broken) -> None:
    hang = (
        "    update = 0\n",
        "    update = 0\n    if problem.max_norm == 12:\n        import time; time.sleep(99)\n",
    )
    found = check(broken(hang), timeout=6)
    assert found.failures["clip"].kind == "silent"
    assert found.uncovered("wide") == "not driven after clip"
    told = {*found.refused, *found.failures}
    told |= {run.probe.name for run in found.diagnosis.runs}
    assert told == {each.name for each in probes()}


def test_a_message_of_any_characters_is_told(broken, tmp_path) -> None:
    raises = ("    update = 0\n", "    raise ValueError('half \\udcff <b> \\x1b[31m')\n")
    page = tmp_path / "found.html"
    done = command("check", broken(raises), "--html", str(page))
    assert done.returncode == 2, done.stderr
    assert "ValueError: half \\udcff <b> \\x1b[31m" in done.stdout
    assert "&lt;b&gt;" in page.read_text()
