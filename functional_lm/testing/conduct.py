"""Whether a layer keeps the contract: structure, dtypes, purity, repeatability, linearity."""

from typing import Any

import numpy as np

from .. import pytree
from .inputs import cast, freeze, jitter
from .subject import BrokenLayer, Subject, describe


def conduct_faults(subject: Subject, inputs: Any, expected_y: Any, g: Any, dtype: str) -> list[str]:
    """Run a layer forward and back and return a sentence on each breach of the contract.

    Args:
        subject: the layer.
        inputs: ``(params, x)`` in the dtype.
        expected_y: what y must be like: a tree of shapes and dtypes.
        g: the cotangent, in the dtype.
        dtype: its name.

    Raises:
        BrokenLayer: for a breach after which there is nothing left to compare.
    """
    kept_inputs = cast(inputs, dtype)
    y, residuals = subject.forward(freeze(inputs))
    expect_like("y", expected_y, y)
    # Between a forward and its vjp comes another forward: what a layer hides between calls, and
    # does not put into its residuals, is then that of other inputs.
    subject.forward(jitter((0,), inputs))
    kept_residuals = [leaf.copy() for leaf in pytree.leaves(freeze(residuals))]
    cotangents = subject.vjp(residuals, freeze(g))
    d_params, d_x = cotangents
    expect_like("d_params", inputs[0], d_params)
    expect_like("d_x", inputs[1], d_x)

    faults = []
    named = (("y", y), ("residuals", residuals), ("d_params", d_params), ("d_x", d_x))
    for name, tree in named:
        for path, leaf in pytree.leaves_with_path(tree):
            place = _at(name, path)
            if leaf.dtype.kind in "fc" and leaf.real.dtype != dtype:
                faults.append(f"{place} is {leaf.dtype} where the inputs are {dtype}")
            if name != "residuals" and not np.isfinite(leaf).all():
                faults.append(f"{place} is not finite in {dtype}")
    faults += _linearity_faults(subject, residuals, g, cotangents, dtype)
    if not _same_bits(subject.forward(inputs)[0], y):
        faults.append(f"a second forward of the same inputs gives other bits in {dtype}")
    if not _same_bits(subject.vjp(residuals, g), cotangents):
        faults.append(f"a second vjp of the same residuals and g gives other bits in {dtype}")
    if not _same_bits(inputs, kept_inputs):
        faults.append("forward or vjp writes to its inputs")
    if not _same_bits(residuals, kept_residuals):
        faults.append("vjp writes to its residuals")
    return faults


def expect_like(name: str, primal: Any, cotangent: Any, dtypes: bool = True) -> None:
    """Require the structure, shapes and dtypes of the primal; None for an integer leaf.

    Raises:
        BrokenLayer: naming the leaf.
    """
    try:
        pairs = pytree.zip_with_path(primal, cotangent)
    except ValueError as error:
        raise BrokenLayer(f"{name} has another structure: {error}") from None
    for path, required, received in pairs:
        place = _at(name, path)
        if required.dtype.kind != "f":
            if received is not None:
                raise BrokenLayer(f"{place} must be None, since tokens are labels: got an array")
        elif not pytree.is_leaf(received):
            raise BrokenLayer(f"{place} must be an array: got {describe(received)}")
        elif received.shape != required.shape:
            raise BrokenLayer(f"{place} must have shape {required.shape}: got {received.shape}")
        elif dtypes and received.dtype != required.dtype:
            raise BrokenLayer(f"{place} must be {required.dtype}: got {received.dtype}")


def _linearity_faults(
    subject: Subject, residuals: Any, g: Any, cotangents: Any, dtype: str
) -> list[str]:
    """Require exactly zero for zero g, and k times the result, to the bit, for k = 2 and −1."""
    faults = []
    zero = subject.vjp(residuals, freeze(pytree.map(lambda leaf: leaf * 0, g)))
    if any(np.any(leaf) for leaf in pytree.leaves(zero)):
        faults.append(f"zero g does not give zero in {dtype}")
    # Scaling by 2 is exact but for subnormals, in an entry or in what it was summed from.
    info = np.finfo(dtype)
    floor = float(info.tiny) / float(info.eps)
    for factor in (2, -1):
        scaled = subject.vjp(residuals, freeze(pytree.map(lambda leaf, k=factor: leaf * k, g)))
        for path, once, result in pytree.zip_with_path(cotangents, scaled):
            counts = np.abs(once) > floor
            if not np.array_equal(factor * once[counts], result[counts]):
                name = "d_params" if path.startswith("0") else "d_x"
                place = _at(name, path[2:])
                faults.append(
                    f"vjp is not linear in g in {dtype}: {place} for {factor}·g "
                    f"is not {factor} times that for g"
                )
    return faults


def _same_bits(a: Any, b: Any) -> bool:
    pairs = zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def _at(name: str, path: str) -> str:
    return f"{name}.{path}" if path else name
