"""The faults that people make in a backward, each a change of one node of the syntax tree.

Changes that cannot change a value are left out: a copy in another layout
(`np.ascontiguousarray`), a place for a result that is used at once (``out=`` inside of an
expression), the sign of a literal axis or size, and another name for the same axis (-1 and 1 of
two).

An operator is a function ``(node, names) -> replacements``: it looks at one expression or one
statement and yields the nodes that may stand in its place. ``names`` knows the variables of the
function; see `Names`. The replacements share nodes with the original and are compiled at once.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Any

Operator = Callable[[ast.AST, "Names"], Iterator[ast.AST]]
OPERATORS: list[Operator] = []

_LAYOUTS = {"ascontiguousarray", "asfortranarray"}
_PAIRWISE = {"add", "subtract", "multiply", "divide"}
_OTHER_SIGN = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
}
_OTHER_UFUNC = {"add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply"}
_OTHER_REDUCTION = {
    "sum": ["mean", "max"],
    "mean": ["sum", "max"],
    "max": ["min", "sum"],
    "any": ["all"],
    "all": ["any"],
    "prod": ["sum"],
}
_OTHER_ORDER: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Names:
    """The variables of a function: which may be confused, and which must not be written to.

    Attributes:
        alike: by name, those of the same kind: all arrays, or all sizes.
        born: by name, the line from which it has a value.
        given: the arguments and what the residuals hold, which must not be written to.
    """

    def __init__(self, function: ast.FunctionDef) -> None:
        """Read the function."""
        arguments = [*function.args.args, *function.args.kwonlyargs]
        arrays = [a.arg for a in arguments if a.annotation and "Array" in ast.unparse(a.annotation)]
        sizes: list[str] = []
        self.born = {a.arg: function.lineno for a in arguments}
        self.given = set(arrays)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                names = [n.id for n in ast.walk(node.targets[0]) if _is_target(n)]
                self.born |= {name: node.lineno + 1 for name in names if name not in self.born}
                is_size = is_check(node.value) or ast.unparse(node.value).endswith(".shape")
                (sizes if is_size else arrays).extend(names)
                if isinstance(node.value, ast.Name) and node.value.id == "residuals":
                    self.given |= set(names)
        self.alike: dict[str, list[str]] = {}
        for group in (arrays, sizes):
            for name in group:
                others = dict.fromkeys(group)
                self.alike[name] = [n for n in others if n != name and n in self.born]


def operator(function: Operator) -> Operator:
    """Add an operator to the list."""
    OPERATORS.append(function)
    return function


@operator
def drop_term(node, names):
    """``a + b`` to ``a`` or ``b``; ``a - b`` to ``a`` or ``-b``."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            yield from (left, right)
        case ast.BinOp(left, ast.Sub(), right):
            yield from (left, _negative(right))


@operator
def drop_factor(node, names):
    """``a * b`` or ``a / b`` to ``a`` or ``b``; likewise ``np.multiply(a, b, out=c)``."""
    match node:
        case ast.BinOp(left, ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Pow(), right):
            yield from (left, right)
        case ast.Call(ast.Attribute(ast.Name("np"), name), [left, right]) if name in _PAIRWISE:
            for kept in (left, right):
                yield ast.Call(_numpy("positive"), [kept], node.keywords)


@operator
def repeat_factor(node, names):
    """``a * b`` to ``a * a * b`` or ``a * b * b``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for factor in (node.left, node.right):
            yield ast.BinOp(node, ast.Mult(), factor)


@operator
def add_transpose(node, names):
    """``a @ b`` to ``a.swapaxes(-1, -2) @ b`` or ``a @ b.swapaxes(-1, -2)``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield ast.BinOp(_transposed(node.left), node.op, node.right)
        yield ast.BinOp(node.left, node.op, _transposed(node.right))


@operator
def drop_dtype(node, names):
    """``np.zeros(n, x.dtype)`` to ``np.zeros(n)``."""
    match node:
        case ast.Call(function, [*rest, ast.Attribute(_, "dtype")], keywords) if rest:
            yield ast.Call(function, rest, keywords)


@operator
def strong_scalar(node, names):
    """``math.sqrt(n)`` to ``np.sqrt(n)``, ``1.0 * a`` to ``np.float64(1.0) * a``: float64 wins."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("math"), "sqrt"), arguments):
            yield ast.Call(_numpy("sqrt"), arguments, [])
        case ast.BinOp(ast.Constant(float()) as left, op, right):
            yield ast.BinOp(ast.Call(_numpy("float64"), [left], []), op, right)


@operator
def drop_call(node, names):
    """``f(a, ...)``, ``a.f(...)``, ``a.T`` and ``a.real`` to ``a``."""
    match node:
        case ast.Attribute(value, "T" | "real"):
            yield value
        case ast.Call(ast.Name(name), [first, *_]) if not name[0].isupper():
            yield _plain(first)
        case ast.Call(ast.Attribute(ast.Name("np" | "math"), name), [first, *_]):
            if name not in _LAYOUTS:
                yield first
        case ast.Call(ast.Attribute(ast.Attribute(ast.Name("np"))), [first, *_]):
            yield first
        case ast.Call(ast.Attribute(ast.Name(name), "vjp")) if name not in names.born:
            yield ast.Tuple([ast.Dict([], []), node.args[1]], ast.Load())
        case ast.Call(ast.Attribute(value)):
            yield value


@operator
def swap_operands(node, names):
    """``a - b`` to ``b - a``; likewise for @, /, // and the arguments of ``np.subtract``."""
    match node:
        case ast.BinOp(left, ast.Sub() | ast.MatMult() | ast.Div() | ast.FloorDiv() as op, right):
            yield ast.BinOp(right, op, left)
        case ast.Call(ast.Attribute(_, "subtract" | "divide") as function, [left, right]):
            yield ast.Call(function, [right, left], node.keywords)


@operator
def change_sign(node, names):
    """``+`` to ``-``, ``*`` to ``/`` or ``+``, and back; in place too, and in ``np.add``."""
    match node:
        case ast.BinOp(left, op, right):
            for other in _OTHER_SIGN.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
        case ast.AugAssign(target, op, value):
            for other in _OTHER_SIGN.get(type(op), ()):
                yield ast.AugAssign(target, other(), value)
        case ast.Call(ast.Attribute(ast.Name("np"), name)) if name in _OTHER_UFUNC:
            yield ast.Call(_numpy(_OTHER_UFUNC[name]), node.args, node.keywords)


@operator
def change_reduction(node, names):
    """``sum`` to ``mean`` or ``max``, ``max`` to ``min``, ``any`` to ``all``."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("math"), "prod"), arguments):
            yield ast.Call(ast.Name("sum", ast.Load()), arguments, [])
        case ast.Call(ast.Attribute(ast.Attribute(ast.Name("np"), "add"), name), arguments):
            maximum = ast.Attribute(_numpy("maximum"), name, ast.Load())
            yield ast.Call(maximum, arguments, node.keywords)
        case ast.Call(ast.Attribute(value, name), arguments):
            for other in _OTHER_REDUCTION.get(name, ()):
                changed = ast.Attribute(value, other, ast.Load())
                kept = [k for k in node.keywords if k.arg != "initial"]
                yield ast.Call(changed, arguments, kept)
        case ast.Call(ast.Name("max"), arguments):
            yield ast.Call(ast.Name("min", ast.Load()), arguments, [])


@operator
def change_axis(node, names):
    """Another ``axis=``: a neighbour; of the last one also the first, and of the first the last."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "axis":
                axis = ast.literal_eval(keyword.value)
                if isinstance(axis, int):
                    for other in {-1: (-2, 0), 0: (1, -1)}.get(axis, (axis - 1, axis + 1)):
                        yield _with_keyword(node, keyword, _number(other))


@operator
def drop_keyword(node, names):
    """No ``keepdims=``, ``axis=``, ``where=``, ``initial=``; no ``out=`` of a statement."""
    match node:
        case ast.Expr(ast.Call() as call):
            for keyword in call.keywords:
                if keyword.arg == "out":
                    yield ast.Expr(_with_keyword(call, keyword, None))
        case ast.Call():
            for keyword in node.keywords:
                if keyword.arg != "out":
                    yield _with_keyword(node, keyword, None)


@operator
def negate(node, names):
    """``a`` to ``-a`` for each product, sum and value; ``-a`` and ``~a`` to ``a``."""
    match node:
        case ast.UnaryOp(ast.USub() | ast.Invert() | ast.Not(), operand):
            if not isinstance(operand, ast.Constant) or isinstance(operand.value, float):
                yield operand
        case ast.BinOp():
            yield _negative(node)
        case ast.Assign([ast.Name()] as targets, ast.Call() | ast.Subscript()) if _is_number(node):
            yield ast.Assign(targets, _negative(node.value))
        case ast.AugAssign(target, op, value):
            yield ast.AugAssign(target, op, _negative(value))
        case ast.Return(ast.Tuple([first, second])):
            if _is_number(first):
                yield ast.Return(ast.Tuple([_negative(first), second], ast.Load()))
            if _is_number(second):
                yield ast.Return(ast.Tuple([first, _negative(second)], ast.Load()))
        case ast.Return(value) if _is_number(value):
            yield ast.Return(_negative(value))
        case ast.Dict(keys, values):
            for i, value in enumerate(values):
                yield ast.Dict(keys, [*values[:i], _negative(value), *values[i + 1 :]])


@operator
def change_constant(node, names):
    """``n`` to ``n + 1``: a factor, an index, the end of a slice."""
    match node:
        case ast.Constant(bool() | str() | None):
            return
        case ast.UnaryOp(ast.USub(), ast.Constant(int() as value)):
            yield _number(1 - value)
        case ast.Constant(int() | float() | complex() as value):
            yield ast.Constant(value * 2 if isinstance(value, complex) else value + 1)


@operator
def exchange_names(node, names):
    """One variable for another of its kind: ``d_gate`` for ``d_up``, ``g`` for ``h``, T for S."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for other in names.alike.get(node.id, ()):
            if names.born[other] <= node.lineno:
                yield ast.Name(other, ast.Load())


@operator
def exchange_elements(node, names):
    """Two neighbours exchanged: unpacked, returned, in a list, or given to a constructor."""
    match node:
        case ast.Assign([ast.Tuple(elements)], value):
            for changed in _swapped(elements):
                yield ast.Assign([ast.Tuple(changed, ast.Store())], value)
        case ast.Return(ast.Tuple(elements)):
            for changed in _swapped(elements):
                yield ast.Return(ast.Tuple(changed, ast.Load()))
        case ast.List(elements):
            for changed in _swapped(elements):
                yield ast.List(changed, ast.Load())
        case ast.Dict(keys, values):
            for changed in _swapped(values):
                yield ast.Dict(keys, changed)
        case ast.Call(ast.Name(name) as function, arguments) if name[0].isupper():
            for changed in _swapped(arguments):
                yield ast.Call(function, changed, node.keywords)


@operator
def change_comparison(node, names):
    """``<=`` to ``<``, ``==`` to ``!=``, and back."""
    match node:
        case ast.Compare(left, [op], right):
            yield ast.Compare(left, [_OTHER_ORDER[type(op)]()], right)


@operator
def decide(node, names):
    """A condition that always or never holds; one side of ``and``, ``or``, ``&``."""
    match node:
        case ast.If(_, body, orelse):
            for value in (True, False):
                yield ast.If(ast.Constant(value), body, orelse)
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.BoolOp(_, values):
            yield from values
        case ast.BinOp(left, ast.BitAnd() | ast.BitOr(), right):
            yield from (left, right)


@operator
def drop_subscript(node, names):
    """``a[:, None]`` and ``a[i]`` to ``a``; ``a[:, None]`` to ``a[None, :]``."""
    match node:
        case ast.Subscript(ast.Attribute(_, "r_"), ast.Tuple(parts)):  # it concatenates
            yield from parts
        case ast.Subscript(value, index, ast.Load()):
            yield value
            elements = index.elts if isinstance(index, ast.Tuple) else []
            if any(isinstance(e, ast.Constant) and e.value is None for e in elements):
                yield ast.Subscript(value, ast.Tuple(elements[::-1], ast.Load()), ast.Load())


@operator
def drop_statement(node, names):
    """A statement left out: ``a *= b``, ``np.exp(a, out=a)``, ``a[i] = b``, ``a = f(a)``.

    Of ``a += b`` also what it does to a: ``a = b``.
    """
    match node:
        case ast.AugAssign(target, _, value):
            yield from (ast.Pass(), ast.Assign([target], value))
        case ast.Expr(ast.Call()) | ast.Assign([ast.Subscript()]):
            yield ast.Pass()
        case ast.Assign([ast.Name(name)], value) if names.born[name] <= node.lineno:
            if not is_check(value):
                yield ast.Pass()


@operator
def write_to_argument(node, names):
    """``a * b`` to ``np.multiply(a, b, out=a)`` where ``a`` is an argument or a residual."""
    ufuncs = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply"}
    match node:
        case ast.BinOp(ast.Name(name) as left, op, right) if name in names.given:
            if type(op) in ufuncs:
                out = [ast.keyword("out", left)]
                yield ast.Call(_numpy(ufuncs[type(op)]), [left, right], out)


@operator
def skip_first(node, names):
    """A loop without its first turn."""
    if isinstance(node, ast.For):
        rest = ast.parse(f"tuple({ast.unparse(node.iter)})[1:]", mode="eval").body
        yield ast.For(node.target, rest, node.body, node.orelse)


def is_check(node: ast.AST) -> bool:
    """Tell whether a node is a call of ``expect_...``, which computes nothing."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("expect_")


def _is_target(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id != "_"


def _is_number(node: ast.AST | None) -> bool:
    """Tell whether an expression, or the value of an assignment, may be a number or an array."""
    match node:
        case ast.Assign(_, value):
            return _is_number(value)
        case ast.Call(ast.Name(name)):
            return not (name[0].isupper() or name == "tuple" or is_check(node))
        case ast.Call(ast.Attribute(_, "empty" | "zeros")):  # no sign to lose
            return False
    return isinstance(node, (ast.Call, ast.Subscript, ast.Name, ast.BinOp))


def _numpy(name: str) -> ast.Attribute:
    return ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())


def _number(value: int) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def _negative(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def _transposed(node: ast.expr) -> ast.expr:
    method = ast.Attribute(node, "swapaxes", ast.Load())
    return ast.Call(method, [_number(-1), _number(-2)], [])


def _plain(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node


def _with_keyword(call: ast.Call, changed: ast.keyword, value: Any) -> ast.Call:
    """Return the call with one keyword's value replaced, or without it."""
    replacement = [] if value is None else [ast.keyword(changed.arg, value)]
    keywords = [r for k in call.keywords for r in (replacement if k is changed else [k])]
    return ast.Call(call.func, call.args, keywords)


def _swapped(elements: list[Any]) -> Iterator[list[Any]]:
    """Yield the list with each pair of neighbours exchanged."""
    for i in range(len(elements) - 1):
        yield [*elements[:i], elements[i + 1], elements[i], *elements[i + 2 :]]
