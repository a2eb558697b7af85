"""The lines that take an update in a framework, made from the source that is tested here.

`lines` fills the settings into `make_optimizer` of `{framework}_impl/optimizers.py` and into the
optimizer's function of `library.py`, leaves out what they make neutral, and takes along whatever is
left refers to in the folder, as it stands there. A test runs the lines, and requires of them the
bits of `{framework}_impl.recipe`.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

from lockstep.optimizers.specialise import constant, displayed, specialise
from lockstep.paths import IMPLEMENTATIONS
from lockstep.problem.settings import Optimizer

WIDTH = 79
# Of statements, so that they fit into a comment, indented, too.
STATEMENT_WIDTH = WIDTH - len("#     ")
# What the lines leave to their reader, beside `parameters`; and what they call the optimizer.
RATES, RESULT = "learning_rates", "optimizer"
SETTINGS = "settings"
FREE = {"learning_rates(problem)": RATES, "problem.optimizer": SETTINGS}


@dataclass(frozen=True)
class Lines:
    """What to paste, as source text, and what there is to say about it.

    The lines leave `parameters` to the reader, a sequence or whatever the library takes, and, where
    they use it, `learning_rates`, a list with the rate of every update.

    imports, setup, definitions and statements follow on each other; setup lets JAX have float64,
    where it is asked for. notes: what comments and docstrings there say of these lines. why: what
    the docstrings say of each definition that the statements name, and of weight_decay where these
    settings couple it to the gradient.
    """

    imports: str
    setup: tuple[str, ...]
    definitions: tuple[str, ...]
    statements: str
    notes: tuple[str, ...]
    why: dict[str, str]

    def __str__(self) -> str:
        head = "\n\n".join(each for each in (self.imports, *self.setup) if each)
        gap = "\n\n\n" if self.definitions else "\n\n"
        return "\n\n\n".join([head, *self.definitions]) + gap + self.statements

    @property
    def links(self) -> list[str]:
        """The optimizer's expression; link by link where it is a chain, without the last, the rate.

        Positional arguments are left out.
        """
        (value,) = (
            node.value
            for node in ast.parse(self.statements).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == RESULT
        )
        calls = [each for each in links(value) if isinstance(each, ast.Call)]
        for each in calls:
            each.args = []
        texts = [ast.unparse(each) for each in calls]
        return [text for text in texts if text != "optax.scale_by_learning_rate()"]


@cache
def lines(
    framework: str, settings: Optimizer, dtype: str = "float32", decay_bias: bool = True
) -> Lines:
    """The lines for these settings in this framework.

    With `decay_bias` they take any number of parameters, else the two W and b.

    Raises NotConstantError where the folder's source is beyond `specialise`.
    """
    room = Room(framework, "library", "optimizers")
    problem = SimpleNamespace(dtype=dtype, decay_bias=decay_bias)
    objects = {"problem": problem, SETTINGS: settings}
    found, numbers = specialise(room.source, "make_optimizer", objects, FREE, RESULT)
    taken = Taken(Rooms(framework))
    setup = []
    if framework == "jax" and dtype == "float64":
        setup = ['jax.config.update("jax_enable_x64", True)']
        taken.imports.add(Import("jax"))
    statements = [taken.resolve(Tidy().visit(each), room) for each in found]
    if refers(statements, SETTINGS):
        values = ", ".join(f"{each}={getattr(settings, each)!r}" for each in taken.settings())
        statements[:0] = ast.parse(f"{SETTINGS} = SimpleNamespace({values})").body
        taken.imports.add(Import("types", "SimpleNamespace"))
    text = "\n".join(layout(each) for each in statements)
    coupled = settings.weight_decay and not settings.decoupled
    notes = [*room.comments(numbers), *room.remarks(text)]
    return Lines(
        import_lines(taken.imports),
        tuple(setup),
        tuple(taken.definitions.values()),
        text,
        # Where nothing decays, there is nothing to say about it.
        tuple(each for each in notes if settings.weight_decay or "decay" not in each),
        {
            name: doc
            for name, doc in taken.docs.items()
            if refers(statements, name) or (coupled and "weight_decay" in doc)
        },
    )


def moving_rate(framework: str) -> str:
    """The statement of the folder's loop that moves the rate, or nothing where the library does."""
    room = Room(framework, "recipe")
    for node in ast.walk(room.tree):
        if isinstance(node, ast.For) and ".param_groups" in ast.unparse(node.iter):
            return textwrap.dedent("\n".join(room.rows[node.lineno - 1 : node.end_lineno]))
    return ""


def refers(statements: Sequence[ast.stmt], name: str) -> bool:
    """Whether the statements use a name."""
    return any(
        isinstance(node, ast.Name) and node.id == name
        for statement in statements
        for node in ast.walk(statement)
    )


class Import(NamedTuple):
    """`import module`, or `from module import name`; `other` is the name it is given here."""

    module: str
    name: str | None = None
    other: str | None = None


class Room:
    """One module of an implementation folder, or several as one, read and not imported."""

    def __init__(self, framework: str, *names: str) -> None:
        """Parse it, and sort its top level into imports and definitions, by name.

        neighbours holds what comes from another module of the folder: that module, and the name
        there; for a whole module, "" and its name.
        """
        folder = IMPLEMENTATIONS / f"{framework}_impl"
        self.source = "".join((folder / f"{name}.py").read_text() for name in names)
        self.rows = self.source.splitlines()
        self.tree = ast.parse(self.source)
        self.imports: dict[str, Import] = {}
        self.neighbours: dict[str, tuple[str, str]] = {}
        self.definitions: dict[str, ast.FunctionDef | ast.ClassDef | ast.Assign] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign):
                self.definitions[ast.unparse(node.targets[0])] = node
            elif isinstance(node, ast.Import):
                for each in node.names:
                    self.imports[each.asname or each.name] = Import(each.name, None, each.asname)
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                for each in node.names:
                    if node.level:
                        self.neighbours[each.asname or each.name] = (module, each.name)
                    else:
                        found = Import(module, each.name, each.asname)
                        self.imports[each.asname or each.name] = found

    def text(self, node: ast.stmt) -> str:
        """A statement as it stands there, with its decorators and the comment above it."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)]) - 1
        while first and self.rows[first - 1].startswith("#"):
            first -= 1
        return "\n".join(self.rows[first : node.end_lineno])

    def comments(self, numbers: Sequence[int]) -> list[str]:
        """The comments that stand right above these lines, each a text."""
        found = []
        for number in numbers:
            first = number - 1
            while self.rows[first - 1].lstrip().startswith("#"):
                first -= 1
            rows = self.rows[first : number - 1]
            found += [" ".join(row.strip().removeprefix("# ") for row in rows)] if rows else []
        return found

    def remarks(self, text: str) -> list[str]:
        """The sentences of the modules' docstrings about something that this text uses: np.float64.

        That is, those that hold one of its dotted names.
        """
        docstrings = [
            str(node.value.value)
            for node in self.tree.body
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ]
        names = set(re.findall(r"[a-z]+\.\w+", text))
        sentences = re.split(r"(?<=\.) ", " ".join(" ".join(docstrings).split()))
        return [each for each in sentences if any(name in each for name in names)]


class Rooms(dict[str, Room]):
    """The modules of a folder by name, read when they are needed."""

    def __init__(self, framework: str) -> None:
        """Of this framework."""
        super().__init__()
        self.framework = framework

    def __missing__(self, name: str) -> Room:
        self[name] = Room(self.framework, name)
        return self[name]


class Taken:
    """What lines take along: imports, and definitions after those that they need themselves."""

    def __init__(self, rooms: Rooms) -> None:
        """Nothing yet."""
        self.rooms = rooms
        self.imports: set[Import] = set()
        self.definitions: dict[str, str] = {}
        self.docs: dict[str, str] = {}
        self.nodes: list[ast.stmt] = []

    def resolve(self, statement: ast.stmt, room: Room) -> ast.stmt:
        """The statement with `adapted.X` as X, and all that it names taken along."""
        flat = Flat(room)
        statement = flat.visit(statement)
        for name, module in flat.found.items():
            self.take(name, self.rooms[module])
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id not in FREE.values():
                self.take(node.id, room)
        return statement

    def take(self, name: str, room: Room) -> None:
        """Take along what a name stands for in this room, if it is more than a local name."""
        if name in room.imports:
            self.imports.add(room.imports[name])
        elif name in room.neighbours:
            module, original = room.neighbours[name]
            self.take(original, self.rooms[module])
        elif name in room.definitions and name not in self.definitions:
            node = room.definitions[name]
            for each in ast.walk(node):
                if isinstance(each, ast.Name) and each.id != name:
                    self.take(each.id, room)
            self.definitions[name] = room.text(node)
            if not isinstance(node, ast.Assign):
                self.docs[name] = " ".join((ast.get_docstring(node) or "").split())
            self.nodes.append(node)

    def settings(self) -> list[str]:
        """The settings that the definitions look up."""
        found = {
            node.attr
            for definition in self.nodes
            for node in ast.walk(definition)
            if isinstance(node, ast.Attribute)
            and ast.unparse(node.value) in (SETTINGS, f"self.{SETTINGS}")
        }
        return sorted(found)


class Flat(ast.NodeTransformer):
    """Makes `adapted.X` X, where `adapted` is another module of the folder."""

    def __init__(self, room: Room) -> None:
        """As this room imports them; `found` holds the module of each X."""
        self.room = room
        self.found: dict[str, str] = {}

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """One name instead of two."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Name):
            package, module = self.room.neighbours.get(node.value.id, ("", ""))
            if module and not package:
                self.found[node.attr] = module
                return ast.Name(node.attr, ast.Load())
        return node


class Tidy(ast.NodeTransformer):
    """Leaves out what these settings make neutral, so that lines read as a person writes them.

    None of it changes a bit: a test compares them.
    """

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Tidy the arguments, then the call."""
        self.generic_visit(node)
        node.keywords = [each for each in node.keywords if not leaves_nothing_out(each)]
        match ast.unparse(node.func), node.args:
            case "jnp.where", [_, yes, no] if same(yes, no):
                return no
            case "optax.chain", parts:
                return chain(node, parts)
            case _, [ast.ListComp() as groups, *rest]:
                return one_group(node, groups, rest)
        return node


def leaves_nothing_out(keyword: ast.keyword) -> bool:
    """Whether it is a mask of True alone, which then fits any number of parameters."""
    elements = displayed(keyword.value) if keyword.arg == "mask" else None
    return bool(elements) and all(same(each, ast.Constant(True)) for each in elements or ())


def same(left: ast.expr, right: ast.expr) -> bool:
    """Whether both are literals of the same value."""
    return constant(left, right) and bool(ast.literal_eval(left) == ast.literal_eval(right))


def chain(node: ast.Call, parts: Sequence[ast.expr]) -> ast.expr:
    """A chain without links that do nothing, and without chains inside it."""
    node.args = [each for part in parts for each in links(part) if not does_nothing(each)]
    return node.args[0] if len(node.args) == 1 else node


def links(part: ast.expr) -> list[ast.expr]:
    """A chain's links, or the link itself."""
    match part:
        case ast.Call(ast.Attribute(ast.Name("optax"), "chain"), args):
            return args
    return [part]


def does_nothing(link: ast.expr) -> bool:
    """Whether a transformation hands on what it gets."""
    match link:
        case ast.Call(ast.Attribute(ast.Name("optax"), "identity")):
            return True
        case ast.Call(ast.Attribute(ast.Name("optax"), "add_decayed_weights"), [rate, *_]):
            return same(rate, ast.Constant(0))
        case ast.Call(ast.Attribute(ast.Name("optax"), "scale_by_schedule"), [ast.Lambda() as at]):
            return same(at.body, ast.Constant(1))
    return False


def one_group(node: ast.Call, groups: ast.ListComp, rest: Sequence[ast.expr]) -> ast.expr:
    """A group for each parameter, with the same settings in all, is none: the settings move up."""
    match groups:
        case ast.ListComp(
            ast.Dict([ast.Constant("params"), *names], [ast.List([ast.Name(one)]), *values]),
            [ast.comprehension(ast.Name(each), iterated)],
        ) if one == each and constant(*values):
            node.args = [iterated, *rest]
            node.keywords[:0] = [
                ast.keyword(ast.literal_eval(name), value)
                for name, value in zip(names, values, strict=True)
                if name
            ]
    return node


def import_lines(imports: set[Import]) -> str:
    """Import statements as a formatter sorts them, the standard library's first."""
    blocks: dict[bool, list[str]] = {True: [], False: []}
    for module in sorted({each.module for each in imports}):
        block = blocks[module.split(".")[0] in sys.stdlib_module_names]
        whole = [each for each in imports if each.module == module and each.name is None]
        block += [
            f"import {module}" + (f" as {each.other}" if each.other else "") for each in whole
        ]
        parts = [each for each in imports if each.module == module and each.name]
        if parts:
            names = (f"{each.name} as {each.other}" if each.other else each.name for each in parts)
            block.append(f"from {module} import {', '.join(sorted(map(str, names)))}")
    for block in blocks.values():
        block.sort(key=lambda line: line.startswith("from "))
    return "\n\n".join("\n".join(block) for block in blocks.values() if block)


def layout(statement: ast.stmt) -> str:
    """A statement in rows of at most STATEMENT_WIDTH: brackets are opened from outside in."""
    text = written(statement)
    if len(text) <= STATEMENT_WIDTH or not isinstance(statement, ast.Assign):
        return text
    (target,) = statement.targets
    return f"{written(target)} = {opened(statement.value, 0)}"


def written(node: ast.AST) -> str:
    """Source text in one line, in the quotes of the rest."""
    return ast.unparse(ast.fix_missing_locations(node)).replace("'", '"')


def opened(node: ast.expr, indent: int) -> str:
    """A call or a list with one element a line; whatever else there is, in one line."""
    match node:
        case ast.Call(function, args, keywords):
            start, end = f"{written(function)}(", ")"
            parts = [("", each) for each in args]
            parts += [(f"{each.arg}=", each.value) for each in keywords]
        case ast.List(elements):
            start, end, parts = "[", "]", [("", each) for each in elements]
        case _:
            return written(node)
    pad = " " * (indent + 4)
    rows = []
    for name, each in parts:
        fits = len(f"{pad}{name}{written(each)},") <= STATEMENT_WIDTH
        text = written(each) if fits else opened(each, indent + 4)
        rows.append(f"{pad}{name}{text},\n")
    return f"{start}\n{''.join(rows)}{' ' * indent}{end}"
