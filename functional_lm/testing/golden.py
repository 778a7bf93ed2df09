"""Golden values: for testing kernels in other languages, without JAX."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from .cases import case_at
from .check import check
from .inputs import cast, normal_like
from .limits import norm
from .oracle import JaxOracle
from .registry import modules, twin
from .subject import Subject

__all__ = ["Golden", "golden"]

READER = (
    "A leaf is right if the Euclidean norm of (mine - float64.LEAF), in float64, is at most "
    "limits[LEAF][dtype]. Inputs are float32 numbers: for a float64 kernel, widen them."
)


@dataclasses.dataclass(frozen=True)
class Golden:
    """One call of a layer and of its vjp, with what must come out.

    Attributes:
        tensors: ``params.*``, ``x`` or ``x.*``, ``keywords.*`` and ``g``, in float32;
            ``residuals.*`` and ``float32.*``, as this library computes them in float32; and
            ``float64.*``, the truth, from JAX. The results are ``y`` and the cotangents
            ``params.*`` and ``x``.
        metadata: the layer, its keywords that are no arrays, and for each result the largest norm
            of the error allowed in float64 and in float32, as strings of JSON.
    """

    tensors: dict[str, Array]
    metadata: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the content of a safetensors file."""
        from safetensors.numpy import save

        return save({k: np.ascontiguousarray(v) for k, v in self.tensors.items()}, self.metadata)


def golden(
    name: str,
    sizes: dict[str, int] | None = None,
    settings: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Golden:
    """Compute golden values of a layer, loss or model of this library.

    Args:
        name: the layer.
        sizes: by letter, such as ``{"B": 2, "T": 128, "D": 64}``; the others have a default.
        settings: keyword-only inputs of the layer, such as ``{"causal": True}``.
        seed: of all draws.
        progress: called with the share of the work that is done.

    Raises:
        AssertionError: if the layer itself does not pass its check at these sizes.
        ImportError: without jax.
        ValueError: for an unknown layer, letter or keyword.
    """
    layer, reference = modules(name)
    case = case_at(name, layer, sizes or {}, settings or {}, seed)
    inputs = cast((case.params, case.x), np.float32)
    wide = cast(inputs, np.float64)
    oracle = JaxOracle(reference, twin(case.keywords))
    report = check(
        name,
        layer,
        *wide,
        reference=oracle,
        keywords=case.keywords,
        seed=seed,
        reproduce=f"golden({name!r}, {sizes!r}, {settings!r}, seed={seed})",
        progress=progress,
    )
    report.raise_if_failed()

    g = cast(normal_like((seed, 1), oracle.output(inputs, "float32")), np.float32)
    truth = oracle.results(wide, cast(g, np.float64), "float64", given="float32")
    subject = Subject(layer, case.keywords)
    y, residuals = subject.forward(inputs)
    d_params, d_x = subject.vjp(residuals, g)
    settings = {k: v for k, v in case.keywords.items() if not pytree.is_leaf(v)}
    tensors = {
        **_named("params", inputs[0]),
        **_named("x", inputs[1]),
        **_named("keywords", case.keywords),
        **_named("g", g),
        **_named("residuals", residuals),
        **_named("float32", {"y": y, "params": d_params, "x": d_x}),
        **_named("float64", truth),
    }
    limits = {}
    for path, leaf in report.leaves.items():
        scale = norm(tensors[f"float64.{path}"]) or 1.0  # what errors of a report are relative to
        assert leaf.float64_limit is not None
        assert leaf.float32_limit is not None
        limits[path] = {
            "float64": leaf.float64_limit * scale,
            "float32": leaf.float32_limit * scale,
        }
    metadata = {
        "layer": name,
        "sizes": case.label,
        "keywords": json.dumps(_plain(settings)),
        "limits": json.dumps(limits),
        "reader": READER,
    }
    return Golden(tensors, metadata)


def _named(prefix: str, tree: Tree) -> dict[str, Array]:
    """Return the arrays of a tree by path; what is complex as pairs of real and imaginary part."""
    found = {}
    for path, leaf in pytree.leaves_with_path(tree):
        array = np.ascontiguousarray(leaf).reshape(np.shape(leaf))
        if array.dtype.kind == "c":
            array = np.stack([array.real, array.imag], axis=-1)
        found[f"{prefix}.{path}" if path else prefix] = array
    return found


def _plain(value: Any) -> Any:
    """Return a keyword as JSON has it: a layer by its name, a bound one with its settings."""
    if pytree.is_leaf(value):
        return "see the tensors"
    if hasattr(value, "_fields"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(member) for member in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return getattr(value, "__name__", type(value).__name__)
