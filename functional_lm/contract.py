"""The contract of every layer, and the checks by which each forward enforces it.

A layer is anything with ``init``, ``forward`` and ``vjp``; normally a module, one file::

    params = init(key, *, sizes..., dtype=np.float32)
    y, residuals = forward(params, x, *, static_and_side_inputs)
    d_params, d_x = vjp(residuals, g)

Positional means differentiated, keyword-only means not differentiated. ``residuals`` holds
everything that ``vjp`` needs. Arguments, residuals and ``g`` are never written to.

A layer may also have a forward mode, the product of its Jacobian with a tangent::

    t_y = jvp(residuals, (t_params, t_x))

Tangents have the structure, shapes and dtypes of ``params`` and ``x``. As with cotangents, that of
integers is None. What does not move has zeros.

Every ``forward``, ``vjp`` and ``jvp`` raises a TypeError or ValueError that names the argument
where the parameters, dtypes or shapes do not fit. Their docstrings list what they refuse besides.

The shape letters, everywhere in this package:

    B  batch          H  query heads           F  hidden size of the feed-forward layer
    T  query time     G  key/value heads       V  vocabulary
    S  key time       K  size of one head      D  model size (D_in, D_out where two meet)
    E  experts
"""

import dataclasses
import difflib
import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""A NumPy array of float32 or float64, or of integers where the docstring says tokens."""

Scalar: TypeAlias = np.floating
"""What a loss returns: a NumPy scalar of the dtype of its input."""

Tree: TypeAlias = Any
"""Nested dicts, tuples, lists and NamedTuples with arrays as leaves; see `pytree`."""

Key: TypeAlias = tuple[int, ...]
"""Randomness as a value: a tuple of small ints; see `prng`."""


class Differentiable(Protocol):
    """What is needed of a layer once it has parameters: ``forward`` and ``vjp``."""

    @property
    def forward(self) -> Callable[..., tuple[Any, Any]]:
        """Map ``(params, x, **side)`` to ``(y, residuals)``."""

    @property
    def vjp(self) -> Callable[[Any, Any], tuple[Tree, Any]]:
        """Map ``(residuals, g)`` to ``(d_params, d_x)``."""


class Layer(Differentiable, Protocol):
    """Anything with ``init``, ``forward`` and ``vjp``: a module, or a value from `compose`."""

    @property
    def init(self) -> Callable[..., Tree]:
        """Make the parameters from a key and the sizes."""

    @property
    def jvp(self) -> Callable[[Any, Any], Any]:
        """Map ``(residuals, (t_params, t_x))`` to ``t_y``; only forward mode needs it."""


class Stream(NamedTuple):
    """A layer's output with an auxiliary loss beside it, such as that of a router.

    A layer that has one returns this in place of its array. The blocks of a model pass on the sum
    beside x, and the loss of the model adds it; its cotangent reaches every summand unchanged.
    """

    x: Array  # (B, T, D)
    auxiliary: Array  # () in the dtype of x


def unpack(output: Any) -> tuple[Any, Any]:
    """Return ``(x, auxiliary)`` of an output; the auxiliary loss is None where there is none."""
    return output if hasattr(output, "auxiliary") else (output, None)


def pack(x: Any, *auxiliary: Any) -> Any:
    """Return x, with the sum of the auxiliary losses that are not None if there are any."""
    losses = [loss for loss in auxiliary if loss is not None]
    return Stream(x, sum(losses[1:], start=losses[0])) if losses else x


class WithState(NamedTuple):
    """The input or output of a layer that carries a state along time, and its cotangent.

    Such a layer takes x with the state before it, and returns y with the state after it, so that
    a text may come in pieces. Both are differentiated; a text that starts here has a state of
    zeros.
    """

    x: Any  # (B, T, ...), or a NamedTuple of such arrays
    state: Array  # (B, ...)


def init_nothing(key: Key | None = (), *, dtype: Any = np.float32) -> Tree:
    """Return ``{}``: the ``init`` of a layer without parameters."""
    expect_dtype(dtype)
    return {}


_FLOATING = (np.dtype(np.float32), np.dtype(np.float64))


def is_floating(leaf: Any) -> bool:
    """Tell whether an array has real floating numbers, those of half precision included."""
    return leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"


def expect_dtype(dtype: Any) -> np.dtype:
    """Return ``np.dtype(dtype)`` if it is float32 or float64.

    Raises:
        TypeError: for any other dtype.
    """
    resolved = np.dtype(dtype)
    if resolved not in _FLOATING:
        raise TypeError(f"dtype must be float32 or float64: got {resolved}; pass dtype=np.float32")
    return resolved


def expect_floating(**arrays: Any) -> None:
    """Require NumPy arrays of one floating dtype, float32 or float64.

    Raises:
        TypeError: naming the argument that is not an array, has another dtype, or has a dtype that
            differs from the first argument's (mixing would silently promote to float64).
    """
    first_name, first_dtype = "", None
    for name, array in arrays.items():
        expect_array(name, array, "float32 or float64", ", dtype=np.float32")
        if array.dtype not in _FLOATING:
            raise TypeError(
                f"{name} must be float32 or float64: got {array.dtype}; "
                f"pass {name}.astype(np.float32)"
            )
        if first_dtype is None:
            first_name, first_dtype = name, array.dtype
        elif array.dtype != first_dtype:
            raise TypeError(
                f"{first_name} and {name} must share one dtype: got {first_name} {first_dtype}, "
                f"{name} {array.dtype}; cast one of them with astype"
            )


def expect_array(name: str, array: Any, of: str, dtype: str = "") -> None:
    """Require a NumPy array, but not one of a kind that computes differently.

    Raises:
        TypeError: for anything else; it says what the array should hold and how to convert it.
    """
    odd = isinstance(array, (np.matrix, np.ma.MaskedArray))
    if odd or not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name} must be a{' plain' if odd else ''} NumPy array of {of}: "
            f"got {type(array).__name__}; pass np.asarray({name}{dtype})"
        )


@functools.cache
def _parse(spec: str) -> tuple[str, ...]:
    return tuple(spec.split())


def expect_shape(name: str, array: Array, spec: str, **sizes: int) -> tuple[int, ...]:
    """Require a shape written in letters and return the sizes that the letters met.

    Args:
        name: what the error calls the array.
        array: the array.
        spec: letters with spaces, such as ``"B T H K"``; a leading ``...`` stands for any number
            of leading axes, a number for itself.
        **sizes: the letters whose size is known already.

    Raises:
        ValueError: with the shape required, the shape received and the axis at fault.

    >>> expect_shape("x", np.zeros((2, 3, 8)), "... D", D=8)
    (8,)
    """
    letters = _parse(spec)
    shape = array.shape
    if letters[0] == "...":
        letters = letters[1:]
        if len(shape) < len(letters):
            raise ValueError(_shape_message(name, shape, spec, sizes, "too few axes"))
        shape = shape[len(shape) - len(letters) :]
    elif len(shape) != len(letters):
        fault = f"it has {len(shape)} axes where {len(letters)} are required"
        raise ValueError(_shape_message(name, shape, spec, sizes, fault))
    for axis, (letter, size) in enumerate(zip(letters, shape, strict=True)):
        required = sizes.get(letter, int(letter) if letter.isdigit() else size)
        if size != required:
            fault = f"axis {axis - len(letters)} is {size}, make it {required}"
            raise ValueError(_shape_message(name, array.shape, spec, sizes, fault))
    return shape


def _shape_message(
    name: str, shape: tuple[int, ...], spec: str, sizes: dict[str, int], fault: str
) -> str:
    letters = ", ".join(_parse(spec))
    used = [f"{letter}={size}" for letter, size in sizes.items() if letter in _parse(spec)]
    known = f" with {', '.join(used)}" if used else ""
    return f"{name} must have shape ({letters}){known}: got {shape}; {fault}"


def expect_params(
    params: Any,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    what: str = "params",
) -> None:
    """Require a dict with exactly the named parameters.

    Args:
        params: the parameters, or the residuals of named layers.
        required: their names.
        optional: the names that may be missing.
        what: params or residuals, for errors.

    Raises:
        TypeError: if ``params`` is not a dict.
        ValueError: naming the parameters that are missing or unknown.
    """
    fix = f"pass what {'init' if what == 'params' else 'forward'} returns"
    if not isinstance(params, dict):
        raise TypeError(f"{what} must be a dict: got {type(params).__name__}; {fix}")
    missing = [name for name in required if name not in params]
    unknown = [name for name in params if name not in required and name not in optional]
    if missing or unknown:
        also = f" (optional: {', '.join(optional)})" if optional else ""
        raise ValueError(
            f"{what} must have the keys {{{', '.join(required)}}}{also}: "
            f"got {{{', '.join(map(str, params))}}}; {fix}"
        )


_ACCEPTED: set[Any] = set()  # the inputs that `expect_inputs` has checked before


def expect_inputs(
    params: Tree, parameters: str, x: Any = None, shape: str = "", name_of_x: str = "x"
) -> None:
    """Require the parameters and the input of a layer, of one floating dtype, in shapes that fit.

    Args:
        params: of the layer.
        parameters: their names and shapes, such as ``"weight: D_in D_out, bias?: D_out"``; one
            with a question mark may be missing.
        x: the input, where it is floating.
        shape: of x, such as ``"... D_in"``; see `expect_shape`.
        name_of_x: for errors.

    Raises:
        TypeError: for params that are not a dict; for an array that is not one, not float32 or
            float64, or of another dtype than x.
        ValueError: for parameters that are missing or unknown, or shapes that do not fit.
    """
    try:
        described = [(name, type(p), p.dtype, p.shape) for name, p in params.items()]
        if shape:
            described.append((name_of_x, type(x), x.dtype, x.shape))
        key = (parameters, shape, *described)
        if key in _ACCEPTED:
            return
    except (AttributeError, TypeError):  # not arrays
        key = ()
    specs = dict(spec.split(": ") for spec in parameters.split(", ") if spec)
    names = [name for name in specs if not name.endswith("?")]
    expect_params(params, names, [name[:-1] for name in specs if name.endswith("?")])
    arrays = {name: (params[name], specs.get(name) or specs[f"{name}?"]) for name in params}
    if shape:
        arrays = {name_of_x: (x, shape), **arrays}
    expect_floating(**{name: array for name, (array, _) in arrays.items()})
    sizes: dict[str, int] = {}
    for name in (*names, *arrays):  # x and what is optional have to fit the others
        array, spec = arrays[name]
        letters = [letter for letter in _parse(spec) if letter != "..."]
        sizes |= zip(letters, expect_shape(name, array, spec, **sizes), strict=True)
    if key:
        if len(_ACCEPTED) > 2**12:
            _ACCEPTED.clear()
        _ACCEPTED.add(key)


def expect_with_state(x: Any) -> WithState:
    """Require a `WithState`, and return it.

    Raises:
        TypeError: for anything else, such as the input without a state.
    """
    if not isinstance(x, WithState):
        raise TypeError(
            f"x must be WithState(x, state): got {type(x).__name__}; pass a state of zeros for a "
            "text that starts here"
        )
    return x


def expect_residuals(residuals: Any, kind: type) -> None:
    """Require the residuals of the layer whose ``vjp`` this is.

    Raises:
        TypeError: for anything else, such as the input of the layer.
    """
    if not isinstance(residuals, kind):
        layer = kind.__module__.rpartition(".")[2]
        raise TypeError(
            f"residuals must be those of {layer}: got {type(residuals).__name__}; "
            f"pass the second value that {layer}.forward returns"
        )


def expect_cotangent(g: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Require a cotangent with the shape and dtype of the output that it belongs to.

    A Python float is taken for a scalar output, since it has no dtype that could promote.

    Raises:
        TypeError: for another dtype.
        ValueError: for another shape, even one that would broadcast.
    """
    if shape == () and type(g) is float:
        return
    if getattr(g, "dtype", object) != dtype:  # to NumPy, None is float64
        received = getattr(g, "dtype", type(g).__name__)
        raise TypeError(f"g must have the dtype of y, {dtype}: got {received}; cast with astype")
    if g.shape != shape:
        raise ValueError(f"g must have the shape of y, {shape}: got {g.shape}; broadcast it first")


def expect_tangent(t: Any, shapes: tuple[Tree, Any], dtype: np.dtype) -> tuple[Tree, Any]:
    """Require tangents ``(t_params, t_x)``, and return them.

    Args:
        t: the tangents.
        shapes: those of params and x, in trees like them; None for integers, and ``...`` for what
            a layer inside checks.
        dtype: of params and x.

    Raises:
        TypeError: for anything but a pair, another structure or another dtype.
        ValueError: for another shape, even one that would broadcast.
    """
    if not isinstance(t, tuple) or len(t) != 2:
        raise TypeError(f"t must be (t_params, t_x): got {type(t).__name__}; pass both")
    for name, part, shape in zip(("t_params", "t_x"), t, shapes, strict=True):
        _expect_tangent(name, part, shape, dtype)
    return t


def _expect_tangent(name: str, t: Any, shape: Any, dtype: np.dtype) -> None:
    if shape is ...:
        return
    fields = getattr(shape, "_fields", None)
    if isinstance(shape, dict) or fields:
        required = shape if fields is None else shape._asdict()
        received = t._asdict() if fields and getattr(t, "_fields", None) == fields else t
        if not isinstance(received, dict) or received.keys() != required.keys():
            raise TypeError(
                f"{name} must be a {type(shape).__name__} of {', '.join(required) or 'nothing'}: "
                f"got a {type(t).__name__}"
                f"{' of ' + ', '.join(received) if isinstance(received, dict) else ''}; "
                "pass zeros for what does not move"
            )
        for key, inner in required.items():
            _expect_tangent(f"{name}.{key}", received[key], inner, dtype)
    elif shape is None:
        if t is not None:
            raise TypeError(f"{name} must be None, that of integers: got {type(t).__name__}")
    elif getattr(t, "dtype", object) != dtype:
        received = getattr(t, "dtype", type(t).__name__)
        raise TypeError(f"{name} must be {dtype}, like the layer: got {received}; use astype")
    elif t.shape != shape:
        raise ValueError(f"{name} must have shape {shape}: got {t.shape}; broadcast it first")


def expect_tokens(
    name: str,
    tokens: Any,
    vocab_size: int,
    *,
    ignore_index: int | None = None,
    fix: str = "check the tokenizer against vocab_size",
) -> None:
    """Require integer ids in ``[0, vocab_size)``, or equal to ``ignore_index`` where that is given.

    Raises:
        TypeError: for anything but an array of integers; booleans are not integers here.
        ValueError: naming the position and the value of the first id outside the range (NumPy
            would read a negative one from the end).
    """
    expect_array(name, tokens, "integers")
    if tokens.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integers: got {tokens.dtype}; pass {name}.astype(np.int32)"
        )
    if tokens.size == 0:
        return
    if tokens.min() >= 0 and tokens.max() < vocab_size:
        return
    bad = (tokens < 0) | (tokens >= vocab_size)
    kept = ""
    if ignore_index is not None:
        bad &= tokens != ignore_index
        kept = f", or ignore_index={ignore_index}"
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} must lie in [0, {vocab_size}){kept}: got {int(tokens[position])} at "
            f"position {position}; {fix}"
        )


def expect_targets(
    targets: Any, leading: tuple[int, ...], vocab_size: int, ignore_index: Any
) -> int:
    """Require a target for each row of logits, whose leading axes these are; return ignore_index.

    Raises:
        TypeError: for targets or an ignore_index that are not integers.
        ValueError: for targets of another shape, or outside ``[0, vocab_size)``.
    """
    ignore_index = expect_int("ignore_index", ignore_index, minimum=None)
    expect_tokens("targets", targets, vocab_size, ignore_index=ignore_index)
    if targets.shape != leading:
        raise ValueError(
            f"targets must have the leading shape of x, {leading}: got {targets.shape}; "
            "pass one target for each row"
        )
    return ignore_index


def expect_int(
    name: str, value: Any, *, minimum: int | None = 1, maximum: int | None = None
) -> int:
    """Return ``value`` as a Python int if it is one and within the bounds, where there are any.

    Raises:
        TypeError: for anything but an integer; booleans are not integers here.
        ValueError: for one out of bounds.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer: got {value}; pass a number")
    try:
        integer = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer: got {value!r}; pass an int") from None
    if minimum is not None and integer < minimum:
        raise ValueError(f"{name} must be at least {minimum}: got {integer}; pass a larger one")
    if maximum is not None and integer > maximum:
        raise ValueError(f"{name} must be at most {maximum:,}: got {integer}; pass a smaller one")
    return integer


def expect_sizes(**sizes: Any) -> tuple[int, ...]:
    """Return sizes as Python ints, in order, after checking that each is at least one."""
    return tuple(expect_int(name, size) for name, size in sizes.items())


def expect_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return ``value`` as a Python float if it is a finite real number in ``[low, high]``.

    Raises:
        TypeError: for anything but a real number.
        ValueError: for one outside the range, or NaN.
    """
    if isinstance(value, (bool, np.bool_, str, np.ndarray)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number: got {value!r}; pass a float")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        bounds = f"lie in [{low:g}, {high:g}]"
        if not math.isfinite(high):
            bounds = f"be finite and at least {low:g}" if math.isfinite(low) else "be finite"
        raise ValueError(f"{name} must {bounds}: got {number!r}; pass another number")
    return number


def expect_logits(logits: Array) -> None:
    """Require logits (..., V) whose softmax exists.

    Raises:
        ValueError: for NaN or +inf, or a row of −inf.
    """
    largest = logits.max(axis=-1, initial=-math.inf)
    if not np.isfinite(largest).all():
        raise ValueError(
            f"logits must be finite, or −inf for some: got the maximum {largest}; check the weights"
        )


def expect_bool(name: str, value: Any) -> bool:
    """Return ``value`` as a Python bool if it is one.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False: got {value!r}; pass one of them")
    return bool(value)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "remove it") -> str:
    """Return the end of a message about an unknown name."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; {otherwise}"


def expect_text(text: Any) -> None:
    """Require a text.

    Raises:
        TypeError: for bytes, a list of strings, or anything else.
    """
    if not isinstance(text, str):
        kind = type(text).__name__
        fix = {"bytes": "text.decode()", "list": "''.join(text)"}.get(kind, "a str")
        raise TypeError(f"a text must be a str: got {kind}; pass {fix}")


def expect_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Require one of the named choices.

    Raises:
        ValueError: listing them.
    """
    if not isinstance(value, str) or value not in choices:
        named = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {named}: got {value!r}; pass one of them")


def expect_fields(instance: Any, *checks: tuple[Any, ...]) -> None:
    """Check the fields of a frozen dataclass, store what the checks return, report every fault.

    None passes where it is a field's default.

    Args:
        instance: the dataclass, from its ``__post_init__``.
        *checks: ``(check, names, limits)``, such as ``(expect_int, "steps seed", {"minimum": 0})``.

    Raises:
        TypeError, ValueError: the only fault, or a ValueError with a line for each of several.
    """
    optional = {f.name for f in dataclasses.fields(instance) if f.default is None}
    faults: list[TypeError | ValueError] = []
    for check, names, limits in checks:
        for name in names.split():
            value = getattr(instance, name)
            if value is None and name in optional:
                continue
            try:
                checked = check(name, value, **limits)
            except (TypeError, ValueError) as error:
                faults.append(error)
            else:
                object.__setattr__(instance, name, value if checked is None else checked)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ValueError("\n".join(map(str, faults)))
