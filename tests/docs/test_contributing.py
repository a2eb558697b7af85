"""What CONTRIBUTING.md names is there, and its commands find what they are about."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = [
    line.partition("#")[0].split()
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.M | re.S)
    for line in block.splitlines()
]
TESTS = [" ".join(command[3:]) for command in COMMANDS if "pytest" in command]


def test_it_is_short_and_has_a_command_for_everything() -> None:
    assert len(TEXT.splitlines()) <= 60
    sections = re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert [title for title, _ in sections] == [
        "A mistake", "An optimizer", "A probe", "A framework",
    ]  # fmt: skip
    assert all("It is done when" in text and "```sh" in text for _, text in sections)


def test_every_path_exists() -> None:
    paths = re.findall(r"`([\w./]+(?:/|\.\w+))`", TEXT)
    assert len(paths) > 10
    known = {path for path in paths if path not in ("__init__.py", "mistake.py")}
    known.remove("lockstep/mistakes/catalogue/the_name/")
    assert [path for path in known if not (ROOT / path).exists()] == []


def test_every_command_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"`make (\w+)`", TEXT))
    modules = re.findall(r"python -m ([\w.]+)", TEXT)
    assert len(modules) >= 8
    assert [name for name in modules if find_spec(name) is None] == []
    for program, command, *arguments in COMMANDS:
        if program.endswith("/lockstep"):
            source = (ROOT / "lockstep" / "cli" / f"{command}.py").read_text()
            options = [each.strip("-") for each in arguments if each.startswith("--")]
            assert options
            assert all(re.search(rf"\b{option}\b", source) for option in options)


@pytest.mark.parametrize("arguments", TESTS)
def test_every_command_of_tests_finds_some(arguments) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments.split(), "--collect-only", "-p", "no:xdist"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"\.py", done.stdout)) >= 1
