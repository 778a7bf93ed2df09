"""What a bug of the zoo consists of, and how it is planted: as a patch of a right layer."""

import ast
import functools
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from functional_lm.testing import registry

PLANTED: list[tuple[Any, ...]] = []
"""(layer, params, x, keywords, bugs as text)."""


class Bug(NamedTuple):
    """A layer with one mistake, and what a good diagnosis says about it."""

    name: str  # a short sentence, unique
    layer: Any  # the faulty layer
    right: Any  # the same layer without the mistake
    params: Any
    x: Any
    keywords: dict[str, Any]
    reference: Any  # what both are checked against
    leaves: tuple[str, ...]  # those that come out wrong; none where only the conduct is at fault
    cause: str  # a key of functional_lm.testing.CAUSES
    says: tuple[str, ...]  # words that the diagnosis has to contain


def plant(right: Any, params: Any, x: Any, text: str, **keywords: Any) -> None:
    """Add bugs of a module of the library, or of a `Layer` at other inputs."""
    PLANTED.append((right, params, x, keywords, text))


class Layer:
    """A layer of the zoo: a namespace of functions, which get no ``self``.

    ``inputs`` are (params, x, keywords), and ``bugs`` a text as `bugs_of` takes it.
    """

    def __init_subclass__(cls) -> None:
        for name, value in list(vars(cls).items()):
            if isinstance(value, types.FunctionType):
                setattr(cls, name, staticmethod(value))
        PLANTED.append((cls, *cls.inputs, cls.bugs))


def bugs_of(right: Any, params: Any, x: Any, keywords: Any, text: str) -> Iterator[Bug]:
    """Yield the bugs of one layer that a text describes.

    Each is a paragraph: its name; the wrong leaves, the cause and, in parentheses, words that the
    diagnosis has to contain; then a patch of the layer's source. Runs of lines with "-" are
    replaced by the lines with "+" behind them, at the indentation of the first::

        the bias gets the mean of the rows
        params.bias: constant factor (1/7)
        - d_params["bias"] = sum_rows(g)
        + d_params["bias"] = g.mean(axis=0)

    Raises:
        ValueError: for lines to replace that the source does not have exactly once.
    """
    module = isinstance(right, types.ModuleType)
    layer_name = right.__name__.rpartition(".")[2]
    reference = twin_of(right) if module else right.reference
    outside = {"__package__": right.__package__} if module else vars(inspect.getmodule(right))
    source = _without_jvp(inspect.getsource(right))
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        title, verdict, *patch = paragraph.splitlines()
        leaves, cause, says = re.fullmatch(r"(?:(.+): )?(.+?)(?: \((.+)\))?", verdict).groups("")
        name = f"{layer_name}: {title}"
        faulty = types.ModuleType(right.__name__)
        vars(faulty).update(outside)
        exec(compile("\n".join(patched(source, patch, name)), name, "exec"), vars(faulty))
        for kind, value in vars(right).items():
            if isinstance(value, type) and issubclass(value, tuple) and kind != "Residuals":
                setattr(faulty, kind, value)  # x has this type, not that of the copy
        layer = faulty if module else vars(faulty)[layer_name]
        expected = (reference, tuple(leaves.split()), cause, tuple(says.split()))
        yield Bug(name, layer, right, params, x, keywords, *expected)


def _without_jvp(code: str) -> list[str]:
    """Return the lines without those of forward mode, which shares some with the backward."""
    lines = code.splitlines()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef) and node.name == "jvp":
            return lines[: node.lineno - 1] + lines[node.end_lineno :]
    return lines


def twin_of(module: Any) -> Any:
    """Return the JAX twin of a module as a function that takes the module's own keywords."""
    forward = registry.twin(module).forward

    @functools.wraps(forward)
    def reference(params: Any, x: Any, **keywords: Any) -> Any:
        return forward(params, x, **registry.twin(keywords))

    return reference


def patched(source: list[str], patch: list[str], name: str) -> list[str]:
    """Return the source with each run of "-" lines replaced; comments at line ends do not count."""
    code = [line.partition("  #")[0].strip() for line in source]
    for hunk in re.findall(r"(?:- .*\n)+(?:\+ .*\n)*", "\n".join([*patch, ""])):
        old = [line[2:].strip() for line in hunk.splitlines() if line[0] == "-"]
        new = [line[2:] for line in hunk.splitlines() if line[0] == "+"]
        found = [i for i in range(len(code)) if code[i : i + len(old)] == old]
        if len(found) != 1:
            raise ValueError(f"{name}: the source has {len(found)} times, not once: {old}")
        place = slice(found[0], found[0] + len(old))
        indent = source[place.start][: -len(source[place.start].lstrip())]
        source = [*source[: place.start], *(indent + line for line in new), *source[place.stop :]]
        code = [*code[: place.start], *new, *code[place.stop :]]
    return source


def draw(seed: int, *shape: int, scale: float = 1.0) -> Any:
    """Return float64 from N(0, scale²)."""
    return scale * np.random.default_rng(seed).standard_normal(shape)


class Pair(NamedTuple):
    """Two arrays as the input of a layer."""

    a: Any
    b: Any
