"""Partial evaluation: a function's source with its settings filled in, and nothing run.

`specialise` reads one function of a source, and whatever functions of the source that one looks up
in a table, and executes them on syntax trees instead of on values: settings become their
literal values, a condition that is then constant leaves one of its branches, and what only gave
something a name for its next use is put where it is used. What is left are the statements that a
person would have written for these settings. Nothing is imported, and nothing is known of any
framework.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple


class Residual(NamedTuple):
    """What is left of a function: statements, and the numbers of the source lines they are from."""

    statements: list[ast.stmt]
    lines: list[int]


class NotConstantError(NotImplementedError):
    """The source holds something that this evaluator does not resolve; the message shows it."""


def specialise(
    source: str, function: str, objects: Mapping[str, Any], free: Mapping[str, str], result: str
) -> Residual:
    """What `function` of this source comes to.

    objects: what an expression stands for, by its text; its attributes become literals.
    free: what an expression is called in the statements, by its text.
    result: the name that the statements give to what the function returns.

    Raises NotConstantError for a condition, or a call by name, that the objects do not settle.
    """
    specialiser = Specialiser(ast.parse(source), objects, free)
    return Residual(specialiser.call(function, result), sorted(specialiser.lines))


def literal(value: Any) -> ast.expr:
    """The expression that a plain value is written as."""
    return ast.parse(repr(value), mode="eval").body


def constant(*nodes: ast.AST) -> bool:
    """Whether all of these are literals."""
    try:
        for node in nodes:
            ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True


def displayed(node: ast.AST) -> list[ast.expr] | None:
    """The elements of a tuple or list that is written out, and None for anything else."""
    return node.elts if isinstance(node, ast.Tuple | ast.List) else None


class Specialiser(ast.NodeTransformer):
    """Executes a function on syntax trees; `names` holds what the local names stand for."""

    def __init__(
        self, module: ast.Module, objects: Mapping[str, Any], free: Mapping[str, str]
    ) -> None:
        """Find the functions, and tables of them: `RULES = {"adam": adam}`, or `library.adam`."""
        self.objects, self.free = objects, free
        self.functions: dict[str, ast.FunctionDef] = {}
        self.tables: dict[str, dict[str, str]] = {}
        self.names: dict[str, ast.expr] = {}
        self.lines: set[int] = set()
        for node in module.body:
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                (target,), pairs = node.targets, zip(node.value.keys, node.value.values)
                self.tables[ast.unparse(target)] = {
                    ast.literal_eval(name): ast.unparse(function).rpartition(".")[2]
                    for name, function in pairs
                    if name
                }

    def call(self, name: str, result: str) -> list[ast.stmt]:
        """The statements of a function's body, and one that names what it returns."""
        left: list[ast.stmt] = []
        returned = self.body(self.functions[name].body, left)
        if returned is None:
            raise NotConstantError(f"{name} returns nothing")
        if not (isinstance(returned, ast.Name) and returned.id == result):
            left.append(ast.Assign([ast.Name(result, ast.Store())], returned))
        return inline(ast.Module(left, []), keep=result)

    def inlined(self, name: str, arguments: Sequence[ast.expr]) -> ast.expr:
        """What a call of one of the module's functions returns, as one expression."""
        function = self.functions[name]
        outer, self.names = (
            self.names,
            dict(zip((each.arg for each in function.args.args), arguments, strict=True)),
        )
        *left, last = self.call(name, "returned")
        self.names = outer
        if left or not isinstance(last, ast.Assign):
            raise NotConstantError(f"{name} is more than one expression")
        return last.value

    def body(self, statements: Sequence[ast.stmt], left: list[ast.stmt]) -> ast.expr | None:
        """Execute statements, append to `left` those that are left; return what they return."""
        for statement in statements:
            self.lines.add(statement.lineno)
            if isinstance(statement, ast.Return):
                return self.value(statement.value)
            if isinstance(statement, ast.If):
                branch = statement.body if self.truth(statement.test) else statement.orelse
                returned = self.body(branch, left)
                if returned is not None:
                    return returned
            elif isinstance(statement, ast.Assign):
                (target,) = statement.targets
                self.assign(target, self.value(statement.value), left)
            elif isinstance(statement, ast.Expr):
                if not constant(statement.value):  # a docstring is
                    left.append(ast.Expr(self.value(statement.value)))
            else:
                raise NotConstantError(ast.unparse(statement))
        return None

    def assign(self, target: ast.expr, value: ast.expr, left: list[ast.stmt]) -> None:
        """Remember what a name stands for; keep the statement where that is more than a name."""
        elements = displayed(value)
        if isinstance(target, ast.Tuple) and elements and len(elements) == len(target.elts):
            for each, element in zip(target.elts, elements, strict=True):
                self.assign(each, element, left)
        elif isinstance(target, ast.Name) and not any(
            isinstance(node, ast.Call) for node in ast.walk(value)
        ):
            self.names[target.id] = value
        else:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and stored(node):
                    self.names.pop(node.id, None)
            left.append(ast.Assign([self.visit(deepcopy(target))], value))

    def value(self, node: ast.expr | None) -> ast.expr:
        """The expression with everything filled in that is known."""
        return self.visit(deepcopy(node)) if node else literal(None)

    def truth(self, test: ast.expr) -> bool:
        """Which way a condition goes."""
        known = self.value(test)
        if not constant(known):
            raise NotConstantError(f"if {ast.unparse(test)}")
        return bool(ast.literal_eval(known))

    def visit(self, node: ast.AST) -> Any:
        """Fill in one node; what is then an operation on literals becomes its result."""
        if isinstance(node, ast.expr) and (free := self.free.get(ast.unparse(node))):
            return ast.Name(free, ast.Load())
        node = super().visit(node)
        if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare):
            return folded(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A local name is what it stands for."""
        if isinstance(node.ctx, ast.Load) and node.id in self.names:
            return deepcopy(self.names[node.id])
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """An object's attribute is its value."""
        node.value = self.visit(node.value)
        text = ast.unparse(node.value)
        if text not in self.objects or f"{text}.{node.attr}" in self.objects:
            return node
        return literal(getattr(self.objects[text], node.attr))

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        """A condition that is known leaves one of its branches."""
        return self.visit(node.body if self.truth(node.test) else node.orelse)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """A known part of a list that is written out is written out."""
        self.generic_visit(node)
        elements, part = displayed(node.value), node.slice
        if elements is None:
            return node
        if isinstance(part, ast.Slice):
            bounds = (part.lower, part.upper, part.step)
            if constant(*filter(None, bounds)):
                known = (None if each is None else ast.literal_eval(each) for each in bounds)
                return ast.List(elements[slice(*known)], ast.Load())
        elif constant(part):
            return elements[ast.literal_eval(part)]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Arguments are unpacked, `map` is written out, and `RULES[name]` is looked up."""
        self.generic_visit(node)
        arguments: list[ast.expr] = []
        for each in node.args:
            elements = displayed(each.value) if isinstance(each, ast.Starred) else None
            arguments += [each] if elements is None else elements
        node.args = arguments
        match node.func:
            case ast.Name("map") if len(arguments) == 2 and (items := displayed(arguments[1])):
                calls: list[ast.expr] = [
                    ast.Call(deepcopy(arguments[0]), [item], []) for item in items
                ]
                return ast.Tuple(calls, ast.Load())
            case ast.Subscript(ast.Name(table), ast.Constant(str() as name)) if (
                table in self.tables
            ):
                return self.inlined(self.tables[table][name], arguments)
        return node

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        """A list over pairs with known partners is written out, or loses the known partner."""
        bound = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and stored(each)}
        outer, self.names = (
            self.names,
            {name: value for name, value in self.names.items() if name not in bound},
        )
        try:
            return self.pairs(node)
        finally:
            self.names = outer

    def pairs(self, node: ast.ListComp) -> ast.expr:
        """`[f(x, c) for x, c in zip(xs, [1, 1])]` is `[f(x, 1) for x in xs]`.

        A known list has an element for each of the two parameters here; where they are all the
        same, so they are for any number of parameters. Otherwise it is `[f(xs[0], ...), ...]`.
        """
        (loop,) = node.generators
        match loop:
            case ast.comprehension(
                ast.Tuple([ast.Name(x), ast.Name(partner)]), ast.Call(ast.Name("zip"), [xs, known])
            ):
                values = displayed(self.value(known))
            case _:
                values = None
        if not values or not constant(*values):
            self.generic_visit(node)
            return node
        if len({ast.unparse(each) for each in values}) == 1:
            self.names[partner] = values[0]
            loop.target, loop.iter = ast.Name(x, ast.Store()), self.value(xs)
            node.elt = self.value(node.elt)
            return node
        elements = []
        for index, value in enumerate(values):
            self.names |= {partner: value, x: ast.Subscript(self.value(xs), literal(index))}
            elements.append(self.value(node.elt))
        return ast.List(elements, ast.Load())


def stored(name: ast.Name) -> bool:
    """Whether a name is given something here, instead of being looked up."""
    return isinstance(name.ctx, ast.Store)


def folded(node: ast.expr) -> ast.expr:
    """An operation on literals is its result; and a product with 0 is 0: numbers are finite."""
    match node:
        case ast.BinOp(ast.Constant(0), ast.Mult(), _) | ast.BinOp(_, ast.Mult(), ast.Constant(0)):
            return literal(0.0)
    operands = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
    if not constant(*operands):
        return node
    code = compile(ast.fix_missing_locations(ast.Expression(node)), "<constant>", "eval")
    return literal(eval(code, {"__builtins__": {}}))


def inline(module: ast.Module, keep: str) -> list[ast.stmt]:
    """Put what is used once where it is used, and drop what is not used; `keep` stays.

    A name stays too where its attributes are used, so that lines stay short. Nothing here depends
    on the order in which expressions are evaluated.
    """
    statements = module.body
    for statement in list(statements):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name = statement.targets[0].id
        uses = Counter(
            type(parent)
            for parent in ast.walk(module)
            for child in ast.iter_child_nodes(parent)
            if isinstance(child, ast.Name) and child.id == name and not stored(child)
        )
        if name == keep or uses[ast.Attribute] or uses.total() > 1:
            continue
        statements.remove(statement)
        Substitution(name, statement.value).visit(module)
    return statements


class Substitution(ast.NodeTransformer):
    """Replaces a name by an expression."""

    def __init__(self, name: str, value: ast.expr) -> None:
        """Of this name, by this."""
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The name itself."""
        return self.value if node.id == self.name else node
