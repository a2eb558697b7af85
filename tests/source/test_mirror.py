"""The house rules: three rooms with the same furniture, and nobody looks into another's."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from lockstep.frameworks import FRAMEWORKS
from lockstep.source.columns import title
from lockstep.source.mirror import EXCEPTIONS

FOLDERS = [f"{name}_impl" for name in FRAMEWORKS]
PACKAGES = {"torch", "tensorflow", "keras", "jax", "optax"}

# What each library's optimizers are made from, beside the settings `s`.
MADE_FROM = {"groups", "rate"}


def sources(folder: str) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted((ROOT / folder).glob("*.py"))}


def functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def signature(folder: str, file: str, function: ast.FunctionDef) -> tuple[str, ...]:
    names = [argument.arg for argument in function.args.args]
    return (
        function.name,
        *(
            name
            for name in names
            if (*place(folder, file), function.name, name) not in EXCEPTIONS
            and not (file == "library.py" and name in MADE_FROM)
        ),
    )


def place(folder: str, file: str) -> tuple[str, str]:
    """As EXCEPTIONS names them."""
    return folder.removesuffix("_impl"), file.removesuffix(".py")


def furniture(folder: str) -> dict[str, list[tuple[str, ...]]]:
    """The functions and parameters of each file, without the listed exceptions."""
    return {
        file: [
            signature(folder, file, function)
            for function in functions(source)
            if (*place(folder, file), function.name) not in EXCEPTIONS
        ]
        for file, source in sources(folder).items()
        if place(folder, file) not in EXCEPTIONS
    }


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_same_files_functions_order_and_parameters(folder) -> None:
    assert furniture(folder) == furniture(FOLDERS[0])
    assert sum(map(len, furniture(folder).values())) >= 50


def test_the_hosts_arithmetic_is_the_same_text_everywhere() -> None:
    for file in ("progress.py", "schedule.py"):
        assert len({sources(folder)[file] for folder in FOLDERS}) == 1


def test_every_exception_is_used() -> None:
    for framework, file, *rest in EXCEPTIONS:
        source = sources(f"{framework}_impl")[f"{file}.py"]
        if not rest:
            continue
        name, *parameter = rest
        found = {title(node): node for node in ast.parse(source).body}
        if parameter:
            arguments = [argument.arg for argument in found[name].args.args]
            assert all(each in arguments for each in parameter)
        assert name in found


def test_the_public_surface_is_the_same() -> None:
    surfaces = [re.search(r"__all__ = \[[^]]*\]", sources(f)["__init__.py"]) for f in FOLDERS]
    texts = {match.group() for match in surfaces if match}
    assert len(texts) == 1
    assert all(surfaces)


def imported(source: str) -> set[str]:
    """The top-level packages that a source imports, anywhere in it; relative ones do not count."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_can_be_copied_out(folder) -> None:
    allowed = {
        "pytorch_impl": {"torch"},
        "tensorflow_impl": {"tensorflow", "keras"},
        "jax_impl": {"jax", "optax"},
    }
    standard = {
        "collections",
        "contextlib",
        "functools",
        "inspect",
        "math",
        "types",
        "typing",
        "numpy",
    }
    for file, source in sources(folder).items():
        assert imported(source) <= allowed[folder] | standard, file


# What records a run is imported where it runs, each beside its framework.
# Keras', beside the backend that it has there.
RECORDERS = {
    "pytorch": {"torch"},
    "optax": {"jax", "optax"},
    "keras": {"keras", "tensorflow", "jax", "torch"},
}


def recorder(file: Path) -> str | None:
    """The framework of a recorder's file; None of any other."""
    inside = file.parent.name == "record"
    return next((name for name in RECORDERS if inside and file.name.startswith(name)), None)


def test_a_recorder_imports_its_own_framework_alone() -> None:
    files = [file for file in (ROOT / "lockstep/record").glob("*.py") if recorder(file)]
    assert {recorder(file) for file in files} == set(RECORDERS)
    for file in files:
        assert imported(file.read_text()) & PACKAGES <= RECORDERS[recorder(file)], file


def test_lockstep_imports_no_framework_at_module_level() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in (ROOT / "lockstep").rglob("*.py")
        if recorder(file) is None
    ]
    assert len(modules) >= 10
    code = (
        f"import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted({PACKAGES!r} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (printed.stdout.strip(), printed.stderr) == ("[]", "")


FILES = [ROOT / folder / file for folder in FOLDERS for file in sources(folder)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_three_columns_fit_one_screen(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 100
    assert [line for line in lines if len(line) > 62] == []
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef):
            assert code_lines(function, lines) <= 15, function.name


def code_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """The lines of a function's body that are neither docstring, comment nor blank."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:  # of a protocol
        return 0
    texts = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(text.strip()) and not text.strip().startswith("#") for text in texts)


CONCEPT = re.compile(r"^ *# ((?:reset|forward|gradient|accumulate|update)[a-z+ ]*): (.+)$", re.M)


@pytest.mark.parametrize("folder", FOLDERS)
def test_train_window_covers_the_five_concepts_in_order(folder) -> None:
    source = sources(folder)["training.py"]
    (window,) = [each for each in functions(source) if each.name == "train_window"]
    text = ast.get_source_segment(source, window)
    comments = CONCEPT.findall(text)
    concepts = [concept for names, _ in comments for concept in names.split(" + ")]
    assert concepts == ["reset", "forward", "gradient", "accumulate", "update"]
    assert all(sentence.endswith(".") for _, sentence in comments)


def test_the_frameworks_fuse_what_the_design_says() -> None:
    fused = {
        folder: [names for names, _ in CONCEPT.findall(sources(folder)["training.py"])]
        for folder in FOLDERS
    }
    assert fused == {
        "pytorch_impl": ["reset", "forward", "gradient + accumulate", "update"],
        "tensorflow_impl": ["reset", "forward", "gradient", "accumulate", "update"],
        "jax_impl": ["reset", "forward + gradient", "accumulate + update"],
    }
