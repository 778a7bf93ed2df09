"""A reference with arrays of its own, for one mode of JAX (64 bits or not)."""

import copy
import functools
import inspect
import sys
import types
from typing import Any

import jax
import numpy as np


def refreshed(value: Any) -> Any:
    """Return a value in which every NumPy array that it holds or refers to is a copy.

    JAX casts a NumPy array that a function closes over to the precision of the current mode, and
    remembers the result by the identity of the array, whatever the mode: met first with 32 bits,
    an array has 32 bits for good. So each mode needs arrays of its own, and functions that refer to
    them. Looked through are containers, functions (closures, globals, defaults), `jax.jit`,
    `functools.partial`, methods and plain objects. What refers to no array is returned as it is;
    so are modules, classes and the globals of installed libraries.
    """
    return _Refresher().refresh(value)


class _Refresher:
    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, Any]] = {}  # id: the value, kept alive, and its copy

    def refresh(self, value: Any) -> Any:
        if id(value) not in self.known:
            self.known[id(value)] = value, value  # what holds itself ends here
            self.known[id(value)] = value, self._once(value)
        return self.known[id(value)][1]

    def _once(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, jax.Array):
            too_wide = value.dtype.itemsize == 8 and not jax.config.jax_enable_x64
            return jax.numpy.asarray(np.array(value)) if too_wide else value
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
        if isinstance(value, _JITTED):
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


_JITTED = type(jax.jit(abs))


def _is_installed(value: Any) -> bool:
    """Tell whether a function or class comes from an installed library or Python itself."""
    if value is types.SimpleNamespace or value.__module__.startswith("functional_lm."):
        return False
    path = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    return value.__module__.split(".")[0] in sys.stdlib_module_names or "-packages" in path


def _globals(code: types.CodeType) -> set[str]:
    """Return the names that a function, or one inside it, may look up among its globals."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_globals, inner))
