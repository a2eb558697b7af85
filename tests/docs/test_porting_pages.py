"""The porting pages: the code in their tables takes the same update, and every trap is planted.

What their other blocks print is run with all pages' blocks, in test_docs.py.
"""

import re

import pytest

from docs.porting_table import CONCEPTS, program, snippets
from docs.traps import Trap, pages, planted, says, target, traps
from lockstep import mistakes
from lockstep.diagnosis import check, verdict
from lockstep.frameworks import FRAMEWORKS

PAGES = {page.stem: page for page in pages()}
# Pages into the same framework share traps, and what is told of them: by the first that has it.
FIRST = {
    (target(page), trap): (name, number)
    for name, page in reversed(PAGES.items())
    for number, trap in reversed([*enumerate(traps(page.read_text()), 1)])
}
TRAPS = [
    pytest.param(
        framework,
        trap,
        id=f"{name}-{number}",
        marks=[] if (name, number) == ("jax-to-pytorch", 2) else [pytest.mark.slow],
    )
    for (framework, trap), (name, number) in FIRST.items()
]
# Loud ones, which no check has to name, and those that leave the update as it is.
NAMELESS = {
    ("jax-to-pytorch", 1),
    ("jax-to-pytorch", 11),
    ("jax-to-tensorflow", 2),
    ("pytorch-to-jax", 1),
    ("tensorflow-to-jax", 1),
    ("tensorflow-to-jax", 2),
    ("tensorflow-to-pytorch", 1),
    ("tensorflow-to-pytorch", 2),
}
# What a program sets for its whole process, which must then have been started for it.
SETS = "config.update("
NAMED = re.compile(r"(?:mistake|policy|library does|ways): (.+)")


def named(told: str) -> set[str]:
    """The mistakes that a check names, in its first line."""
    found = NAMED.search(told.splitlines()[0])
    return set(re.split(r" or | and ", found[1])) if found else set()


def sections(page: str) -> list[str]:
    """What is said of each trap, with its diff."""
    return re.findall(r"^### \d+\. .*?(?=^##)", page, re.MULTILINE | re.DOTALL)


def test_there_is_a_page_for_every_ordered_pair() -> None:
    pairs = {f"{a}-to-{b}" for a in FRAMEWORKS for b in FRAMEWORKS if a != b}
    assert set(PAGES) == pairs


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_code_of_the_tables_takes_the_same_update(framework) -> None:
    found = check(str(program(framework)))
    assert found.verdict == "same", verdict.text(found)
    assert not found.notes
    assert len(found.diagnosis.runs) == 41


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_concept_has_code_that_fits_beside_another(framework) -> None:
    found = snippets(framework)
    assert tuple(found) == CONCEPTS
    for concept, cut in found.items():
        assert cut, f"{framework} has no code for {concept}"
        for each in cut:
            compile(each.code.replace("return ", ""), concept, "exec")
            assert max(map(len, each.code.splitlines())) <= 62


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_the_others_have(name) -> None:
    text = PAGES[name].read_text()
    source, goal = name.split("-to-")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "What to write for what you have",
        "The optimizer's settings",
        "The traps, in the order in which you meet them",
        "Checklist",
        "A port, first with a trap in it",
    ]
    for directive in ("porting-table", "porting-optimizers"):
        assert f"```{{{directive}}} {source} {goal}\n" in text
    *_, last = re.findall(r"^\d+\. (.*)$", text.split("## Checklist")[1], re.MULTILINE)
    assert last.startswith("`lockstep check my_port.py`")
    first, second = re.findall(r"^my_port\.py (.*)$", text.split("## A port")[1], re.MULTILINE)
    assert named(first)
    assert second.startswith("takes the same update")


@pytest.mark.parametrize("name", PAGES)
def test_a_trap_names_the_mistake_that_the_check_names(name) -> None:
    text = PAGES[name].read_text()
    found = sections(text)
    assert len(found) == len(traps(text)) >= 10
    for number, section in enumerate(found, 1):
        (trap,) = traps(section)
        said = named(trap.told)
        assert said <= set(mistakes.names())
        prose = section.partition("```diff")[0]
        for each in said:
            assert f"`{each}`" in prose, f"{each} is found, and not named: {section}"
        assert bool(said) != ((name, number) in NAMELESS), section


@pytest.mark.parametrize("name", PAGES)
def test_every_mistake_of_a_page_is_in_the_catalogue(name) -> None:
    words = re.findall(r"`([a-z]+(?:-[a-z0-9]+)+)`", PAGES[name].read_text())
    assert words
    assert set(words) <= set(mistakes.names())


@pytest.mark.parametrize(("framework", "trap"), TRAPS)
def test_a_check_says_of_a_trap_what_the_page_says(request, framework: str, trap: Trap) -> None:
    if SETS not in trap.diff:
        request.getfixturevalue("in_one_process")
    assert says(framework, trap.diff) == trap.told


def test_each_trap_changes_its_program() -> None:
    for parameters in TRAPS:
        framework, trap = parameters.values
        source = program(framework).read_text()
        changed = planted(source, trap.diff)
        assert changed != source
        compile(changed, "my_port.py", "exec")


@pytest.mark.parametrize(
    "diff", ["-optimizer.nothing()\n", "-for x, y in window:\n-\n", "-for p in parameters:\n"]
)
def test_a_trap_without_a_place_of_its_own_is_refused(diff) -> None:
    with pytest.raises(ValueError, match=r"in \d+ places"):
        planted(program("pytorch").read_text(), diff)
