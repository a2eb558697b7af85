"""No generator waits in the middle of a context, which would be its caller's as well."""

import ast

from conftest import ROOT

# What they set stands in context variables.
CONTEXTS = {"errstate", "localcontext", "enable_x64", "workdps"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def inside(node: ast.AST) -> list[ast.AST]:
    """All nodes of a function or a statement, but for those of the functions in it."""
    children = [each for each in ast.iter_child_nodes(node) if not isinstance(each, FUNCTIONS)]
    return [*children, *(deep for child in children for deep in inside(child))]


def names(item: ast.withitem) -> set[str]:
    """The names in what a `with` enters."""
    found = (getattr(each, "attr", getattr(each, "id", None)) for each in ast.walk(item))
    return {name for name in found if name}


def waiting(source: str) -> tuple[int, list[int]]:
    """How many contexts there are, and the lines of those in which something is yielded."""
    blocks = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.With) and any(names(item) & CONTEXTS for item in node.items)
    ]
    yields = ast.Yield | ast.YieldFrom
    return len(blocks), [
        block.lineno for block in blocks if any(isinstance(each, yields) for each in inside(block))
    ]


def test_no_generator_waits_in_a_context() -> None:
    assert waiting("def f():\n    with np.errstate(all='ignore'):\n        yield") == (1, [2])
    looked_at = 0
    for folder in ("lockstep", "benchmarks", "docs"):
        for file in (ROOT / folder).rglob("*.py"):
            count, found = waiting(file.read_text())
            assert found == [], file
            looked_at += count
    assert looked_at >= 15
