"""The mutants of a layer: its functions with one node of the syntax tree changed.

Code that computes is mutated; code that only checks is not: calls of ``expect_...``, ``try``
blocks, and ``if`` blocks that end in ``raise``. Mutants with the same source count once.

A function's class is ``vjp`` if it is a ``vjp`` or ``input_vjp``, or one of these reaches it (a
private helper, a shared formula of `functional_lm.numerics` and the like), else
``forward`` if a forward reaches it. Of the models only the first class is mutated. The others have
unit tests: ``init``, ``step``, ``init_cache``, ``weights``, ``freeze``, ``activations``.
"""

import ast
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from operators import OPERATORS, Names, is_check

from functional_lm import chunks, heads, numerics, rotation

SHARED = (numerics, heads, rotation, chunks)
"""The modules of the formulas that layers share."""


class Mutant(NamedTuple):
    """One function with one fault."""

    file: str  # "layers/linear.py"
    function: str
    line: int
    kind: str  # "vjp" or "forward"
    operator: str
    before: str  # the expression that changes, such as "a * b"; a lone name with its parent
    after: str
    statement: str  # around it
    number: int  # among the mutants of the function
    code: CodeType

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the mutant, without its line and the statement around it."""
        return (self.file, self.function, self.operator, self.before, self.after)

    def __str__(self) -> str:
        """Return the mutant as a diff in one line."""
        place = f"{self.file}:{self.line} {self.function}, {self.operator}"
        return f"{place}: {self.before}  →  {self.after}   in   {self.statement}"


class Code:
    """A layer's functions and the shared ones, from which mutated layers are built."""

    def __init__(self, module: ModuleType) -> None:
        """Read the sources."""
        self._module = module
        self._own = _functions(module)
        self._shared: dict[str, ast.FunctionDef] = {}
        self._file: dict[str, str] = {}
        for shared in SHARED:
            self._shared |= _functions(shared)
            self._file |= dict.fromkeys(_functions(shared), _file(shared))
        self._code = _compile([*self._own.values()])
        self._shared_code = _compile([*self._shared.values()])

    def build(self, mutant: Mutant | None = None) -> Any:
        """Return an object with ``forward`` and ``vjp``, all functions fresh, one of them mutated.

        The types of the module, such as `Residuals`, are the module's own.
        """
        shared = {name: value for module in SHARED for name, value in vars(module).items()}
        exec(self._shared_code, shared)
        own = dict(vars(self._module))
        exec(self._code, own)
        if mutant:
            exec(mutant.code, shared if mutant.file in self._file.values() else own)
        own |= {n: shared[n] for n in self._shared if inspect.isfunction(own.get(n))}
        return SimpleNamespace(**own)

    def own_mutants(self) -> list[Mutant]:
        """Return the mutants of the layer's own file."""
        is_model = ".models." in self._module.__name__
        behind_vjp = _reached(self._own, ["vjp", "input_vjp"])
        reached = behind_vjp if is_model else _reached(self._own, ["forward", *behind_vjp])
        file = _file(self._module)
        return [
            mutant
            for name in reached
            for mutant in _mutants(
                file, self._own[name], "vjp" if name in behind_vjp else "forward"
            )
        ]

    def shared_mutants(self) -> list[Mutant]:
        """Return the mutants of the shared formulas that the layer uses."""
        if ".models." in self._module.__name__:
            return []
        behind = {}
        for root in ("forward", "vjp"):  # the vjp comes last, so that it decides
            names = [n for f in _reached(self._own, [root]) for n in _loaded(self._own[f])]
            used = [n for n in names if n in vars(self._module) and n in self._shared]
            behind |= dict.fromkeys(_reached(self._shared, used), root)
        return [
            mutant
            for name, kind in behind.items()
            for mutant in _mutants(self._file[name], self._shared[name], kind)
        ]


def _file(module: ModuleType) -> str:
    return module.__name__.partition(".")[2].replace(".", "/") + ".py"


def _functions(module: ModuleType) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _compile(body: list[Any]) -> CodeType:
    module = ast.fix_missing_locations(ast.Module(body, []))
    with warnings.catch_warnings(action="ignore"):  # such as: int is not callable
        return compile(module, "<mutant>", "exec")


def _loaded(function: ast.FunctionDef) -> list[str]:
    """Return the global names that a function reads; a variable may have a function's name."""
    nodes = list(ast.walk(function))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return [node.id for node in names if node.id not in own]


def _reached(functions: dict[str, ast.FunctionDef], roots: list[str]) -> list[str]:
    """Return the roots and the functions of the same file that they call, directly or not."""
    found: list[str] = []
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name in functions and name not in found and not name.startswith("expect_"):
            found.append(name)
            waiting += _loaded(functions[name])
    return found


def _mutants(file: str, function: ast.FunctionDef, kind: str) -> list[Mutant]:
    names = Names(function)
    original = ast.unparse(function)
    found: dict[str, Mutant] = {}
    for statement, place, node, parent in _sites(function):
        shown = parent if isinstance(node, (ast.Name, ast.Constant)) else None
        before, around = _first_line(shown or node), _first_line(statement)
        for operator in OPERATORS:
            for replacement in operator(node, names):
                place(ast.copy_location(replacement, node))
                source = ast.unparse(function)
                if source != original and source not in found:
                    found[source] = Mutant(
                        file,
                        function.name,
                        statement.lineno,
                        kind,
                        operator.__name__,
                        before,
                        _first_line(shown or replacement),
                        around,
                        len(found),
                        _compile([function]),
                    )
                place(node)
    return list(found.values())


def _first_line(statement: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(statement)).partition("\n")[0]


_Site = tuple[ast.stmt, Callable[[ast.AST], None], ast.AST, ast.AST]


def _sites(block: Any, field: str = "body") -> Iterator[_Site]:
    """Yield (statement, how to replace a node, node, its parent) for each that may be changed."""
    statements = getattr(block, field)
    for i, statement in enumerate(statements):
        if _only_checks(statement):
            continue
        yield statement, _setter(statements, i), statement, statement
        for name, value in ast.iter_fields(statement):
            if name in ("body", "orelse"):
                yield from _sites(statement, name)
            elif name in ("target", "targets"):
                targets = value if isinstance(value, list) else [value]
                for target in targets:
                    if isinstance(target, ast.Subscript):  # its index is an expression
                        yield from _expressions(statement, target, "slice")
            elif name not in ("annotation", "returns"):
                yield from _expressions(statement, statement, name)


def _expressions(statement: ast.stmt, parent: ast.AST, field: str) -> Iterator[_Site]:
    value = getattr(parent, field)
    if isinstance(value, list):
        nodes = [(_setter(value, i), node) for i, node in enumerate(value)]
    else:
        nodes = [(_attribute_setter(parent, field), value)]
    for place, node in nodes:
        if not isinstance(node, (ast.expr, ast.keyword)) or is_check(node):
            continue
        if isinstance(node, ast.expr):
            yield statement, place, node, parent
        match node:
            case ast.Attribute(_, "dtype"):  # all arrays of a layer have the same
                continue
            case ast.UnaryOp(ast.USub(), ast.Constant(int())):  # a literal, such as -1
                continue
        for name in node._fields:
            if name != "func" or isinstance(node.func, ast.Attribute):
                yield from _expressions(statement, node, name)


def _setter(values: list[Any], index: int) -> Callable[[ast.AST], None]:
    return lambda node: values.__setitem__(index, node)


def _attribute_setter(parent: ast.AST, field: str) -> Callable[[ast.AST], None]:
    return lambda node: setattr(parent, field, node)


def _only_checks(statement: ast.stmt) -> bool:
    """Tell whether a statement is a docstring, or validation."""
    match statement:
        case ast.Raise() | ast.Try() | ast.Expr(ast.Constant()):
            return True
        case ast.Expr(value):
            return is_check(value)
        case ast.If(_, body, []):
            return isinstance(body[-1], ast.Raise) or all(map(_only_checks, body))
    return False
