"""The oracle: `jax.vjp` of a reference, in float64 or float32."""

import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from .inputs import same_bits


class JaxOracle:
    """`jax.vjp` of a reference at any inputs of one structure, compiled on first use.

    Args:
        reference: a module with ``forward``, or ``(params, x, **keywords) -> y`` itself, traceable
            by JAX.
        keywords: its keyword-only inputs, closed over as constants.

    Raises:
        ImportError: without jax, naming the extra to install.
        TypeError: for a reference that cannot be called.
    """

    name = "jax.vjp of the reference"
    tolerance = 1e-11
    draws = 8
    has_float32 = True

    def __init__(self, reference: Any, keywords: dict[str, Any]) -> None:
        """Take the reference; nothing is traced yet."""
        try:
            import jax
        except ImportError:
            raise ImportError(
                "checking against a reference needs jax: pip install 'functional-lm[jax]'; "
                "without a reference the checker takes differences and needs none"
            ) from None
        self.jax = jax
        reference = getattr(reference, "forward", reference)
        if not callable(reference):
            raise TypeError(
                f"reference must be a function or have a forward: got {type(reference).__name__}"
            )
        self._reference = reference
        self.keywords = {"float64": keywords, "float32": keywords}
        rounded = pytree.map(_round, keywords)
        if not same_bits(rounded, keywords):
            self.keywords["float32"] = rounded
        self.memory: list[Any] = []  # for what a diagnosis makes of the reference, once
        self._compiled: dict[tuple[int, str], Callable[..., Any]] = {}

    def function(
        self,
        dtype: str = "float64",
        given: str | None = None,
        keywords: dict[str, Any] | None = None,
    ) -> Callable[[Tree, Any], Any]:
        """Return the reference as a function of ``(params, x)`` that computes in a dtype.

        Its keywords are those rounded to the dtype ``given``, or others if they are passed.
        """
        constants = pytree.map(
            lambda leaf: _constant(leaf, dtype), keywords or self.keywords[given or dtype]
        )
        with self.jax.enable_x64(dtype == "float64"):
            reference, constants = refreshed((self._reference, constants), self.jax)
        return lambda params, x: reference(params, x, **constants)

    def output(self, inputs: tuple[Tree, Any], dtype: str) -> Any:
        """Return zeros like the reference's output, without computing it."""
        return self.output_of(self.function(dtype), inputs, dtype)

    def output_of(self, function: Callable[..., Any], inputs: Any, dtype: str) -> Any:
        """Return zeros like the output of a function of ``(params, x)``."""
        with self.jax.enable_x64(dtype == "float64"):
            y = self.jax.eval_shape(function, *inputs)
        return self.jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), y)

    def results(
        self, inputs: tuple[Tree, Any], g: Any, dtype: str, given: str | None = None
    ) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, None for integers.

        ``dtype`` is that of the computation, ``given`` that of the inputs if it is another.
        """
        # One function a dtype: a constant in the keywords is another in the other mode of JAX.
        key = (id(self.keywords[given or dtype]), dtype)
        if key not in self._compiled:
            self._compiled[key] = self.jax.jit(self.differentiated(self.function(dtype, given)))
        return self.results_of(self._compiled[key], inputs, g, dtype)

    def results_of(self, run: Callable[..., Any], inputs: Any, g: Any, dtype: str) -> Tree:
        """Return the results of what `differentiated` returned."""
        with self.jax.enable_x64(dtype == "float64"):
            y, cotangents = run(*inputs, g)
        remaining = iter(cotangents)
        d_params, d_x = pytree.map(
            lambda leaf: np.asarray(next(remaining)) if _is_floating(leaf) else None, inputs
        )
        return {"y": self.jax.tree.map(np.asarray, y), "params": d_params, "x": d_x}

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of the reference, with the defaults of those not given."""
        try:
            parameters = inspect.signature(self._reference).parameters.values()
        except (TypeError, ValueError):
            parameters = ()  # type: ignore[assignment]
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return defaults | self.keywords["float64"]

    def with_keywords(self, keywords: dict[str, Any]) -> "JaxOracle":
        """Return the oracle of the same reference with some keywords changed."""
        return JaxOracle(self._reference, self.keywords["float64"] | keywords)

    def pushforward(self, inputs: Any, path: str, tangent: Any) -> Any:
        """Return the Jacobian of y with respect to one leaf, times a tangent of that leaf."""
        tree = {"params": inputs[0], "x": inputs[1]}
        leaf = dict(pytree.leaves_with_path(tree))[path]
        function = self.function()

        def of_leaf(value: Any) -> Any:
            moved = pytree.map_with_path(lambda p, x: value if p == path else x, tree)
            return function(moved["params"], moved["x"])

        with self.jax.enable_x64(True):
            return np.asarray(self.jax.jvp(of_leaf, (leaf,), (tangent,))[1])

    def differentiated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``(params, x, g) -> (y, cotangents of the floating leaves)``."""
        jax = self.jax

        def run(params: Tree, x: Any, g: Any) -> tuple[Any, list[Any]]:
            leaves, structure = jax.tree.flatten((params, x))
            floating = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]

            def of_floating(inputs: list[Any]) -> Any:
                merged = list(leaves)
                for i, leaf in zip(floating, inputs, strict=True):
                    merged[i] = leaf
                return function(*jax.tree.unflatten(structure, merged))

            y, pullback = jax.vjp(of_floating, [leaves[i] for i in floating])
            (cotangents,) = pullback(g)
            return y, cotangents

        return run

    def project(self, results: Tree) -> Tree:
        """Return the results as they are: this oracle knows every entry."""
        return results


def _round(leaf: Array) -> Array:
    """Return floating values rounded to float32, still in their own dtype."""
    return leaf.astype(np.float32).astype(leaf.dtype) if leaf.dtype.kind == "f" else leaf


def _constant(leaf: Array, dtype: str) -> Array:
    """Return a copy in the given dtype if floating; of int64 as int32, JAX's without 64 bits."""
    if leaf.dtype.kind == "f":
        return np.array(leaf, dtype)
    return np.array(leaf, np.int32 if leaf.dtype == np.int64 else None)


def _is_floating(leaf: Any) -> bool:
    return leaf.dtype.kind == "f"


def refreshed(value: Any, jax: Any) -> Any:
    """Return a value in which every NumPy array that it holds or refers to is a copy.

    JAX casts a NumPy array that a function closes over to the precision of the current mode, and
    remembers the result by the identity of the array, whatever the mode: met first with 32 bits,
    an array has 32 bits for good. So each mode needs arrays of its own, and functions that refer to
    them. Looked through are containers, functions (closures, globals, defaults), `jax.jit`,
    `functools.partial`, methods and plain objects. What refers to no array is returned as it is;
    so are modules, classes and the globals of installed libraries.
    """
    return _Refresher(jax).refresh(value)


class _Refresher:
    def __init__(self, jax: Any) -> None:
        self.jax, self.jitted = jax, type(jax.jit(abs))
        self.known: dict[int, tuple[Any, Any]] = {}  # id: the value, kept alive, and its copy

    def refresh(self, value: Any) -> Any:
        if id(value) not in self.known:
            self.known[id(value)] = value, value  # what holds itself ends here
            self.known[id(value)] = value, self._once(value)
        return self.known[id(value)][1]

    def _once(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, self.jax.Array):
            too_wide = value.dtype.itemsize == 8 and not self.jax.config.jax_enable_x64
            return self.jax.numpy.asarray(np.array(value)) if too_wide else value
        if isinstance(value, (type, types.ModuleType, str, bytes)):
            return value
        if isinstance(value, (dict, list, tuple)):
            return self._container(value)
        if isinstance(value, functools.partial):
            called = (value.func, value.args, value.keywords)
            func, args, keywords = found = self.refresh(called)
            return value if found is called else functools.partial(func, *args, **keywords)
        if isinstance(value, types.MethodType):
            parts = (value.__func__, value.__self__)
            found = self.refresh(parts)
            return value if found is parts else types.MethodType(*found)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, self.jitted):
            inner = inspect.unwrap(value)
            found = self.refresh(inner)
            return value if found is inner else found
        if not _is_installed(type(value)) and hasattr(value, "__dict__"):
            attributes = vars(value)
            found = self.refresh(attributes)
            if found is not attributes:
                value = copy.copy(value)
                vars(value).update(found)
        return value

    def _container(self, value: Any) -> Any:
        parts = list(value.values()) if isinstance(value, dict) else list(value)
        found = [self.refresh(part) for part in parts]
        if all(new is old for new, old in zip(found, parts, strict=True)):
            return value
        if isinstance(value, dict):
            return dict(zip(value, found, strict=True))
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)

    def _function(self, value: types.FunctionType) -> Any:
        old_cells = value.__closure__ or ()
        cells = tuple(types.CellType() for _ in old_cells)
        names = dict(value.__globals__)
        new = types.FunctionType(value.__code__, names, value.__name__, None, cells or None)
        self.known[id(value)] = value, new  # for a function that calls itself
        changed = False

        def refresh(part: Any) -> Any:
            nonlocal changed
            found = self.refresh(part)
            changed |= found is not part and found is not new
            return found

        for name in () if _is_installed(value) else _globals(value.__code__) & names.keys():
            names[name] = refresh(names[name])
        for cell, old in zip(cells, old_cells, strict=True):
            try:
                cell.cell_contents = refresh(old.cell_contents)
            except ValueError:  # empty so far
                continue
        new.__defaults__ = refresh(value.__defaults__)
        new.__kwdefaults__ = refresh(value.__kwdefaults__)
        return new if changed else value


def _is_installed(value: Any) -> bool:
    """Tell whether a function or class comes from an installed library or Python itself."""
    module = value.__module__ or ""  # None for a function that exec made
    if value is types.SimpleNamespace or module.startswith("functional_lm."):
        return False
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    return module.split(".")[0] in sys.stdlib_module_names or "-packages" in path


def _globals(code: types.CodeType) -> set[str]:
    """Return the names that a function, or one inside it, may look up among its globals."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_globals, inner))
