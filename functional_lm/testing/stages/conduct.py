"""Whether a layer keeps the contract, apart from its numbers."""

from typing import Any

import numpy as np

from ... import pytree
from ..inputs import at, cast, finite, freeze, jitter, same_bits
from ..report import Finding
from ..subject import BrokenLayer, Examination, Subject, describe

__all__ = ["check_contract", "check_linearity", "check_purity", "like_faults"]


def check_contract(examination: Examination, dtype: str) -> None:
    """Look at what forward and vjp return: structure, shapes, dtypes, None for integers, finite.

    Raises:
        BrokenLayer: if there is nothing of the right shape left to compare.
    """
    subject, report = examination.subject, examination.report
    inputs, g = cast(examination.draws[0], dtype)
    y, residuals = subject.forward(inputs)
    given = (inputs, subject.keywords(dtype))
    report.residual_bytes = pytree.buffer_bytes(residuals, without=given)
    _stop_at(examination, like_faults("y", examination.oracle.output(inputs, dtype), y))
    d_params, d_x = examination.returned = subject.vjp(residuals, g)
    faults = swapped_faults(inputs, d_params, d_x) or [
        *like_faults("params", inputs[0], d_params),
        *like_faults("x", inputs[1], d_x),
    ]
    for path, leaf in pytree.leaves_with_path(residuals):
        if leaf.dtype.kind in "fc" and leaf.real.dtype != dtype:
            place = at("residuals", path)
            faults.append(_dtype_fault(place, leaf.real.dtype, dtype, str(leaf.dtype)))
    for name, tree in (("y", y), ("params", d_params), ("x", d_x)):
        for path, leaf in pytree.leaves_with_path(tree) if not subject.may_be_non_finite else ():
            if leaf.dtype.kind in "fc" and not np.isfinite(leaf).all():
                index = tuple(int(i) for i in np.argwhere(~np.isfinite(leaf))[0])
                message = f"{at(name, path)} is not finite in {dtype}"
                advice = (
                    f"{leaf[index]} at {list(index)}; declare MAY_BE_NON_FINITE = True in the "
                    "layer's module if that is legitimate"
                )
                place = at(name, path)
                faults.append(Finding("contract", message, place, dtype, "not finite", advice))
    _stop_at(examination, faults)


def check_purity(examination: Examination, dtype: str) -> None:
    """Look for writes, for state between calls, for shared memory; and run everything twice."""
    subject = examination.subject
    inputs, g = cast(examination.draws[0], dtype)
    kept_inputs = cast(inputs, dtype)
    y, residuals = subject.forward(inputs)
    # Between a forward and its vjp comes another forward: what a layer hides between calls, and
    # does not put into its residuals, is then that of other inputs.
    subject.forward(jitter((0,), inputs))
    kept_residuals = [leaf.copy() for leaf in pytree.leaves(freeze(residuals))]
    cotangents = subject.vjp(residuals, g)
    again, twice = subject.forward(inputs)[0], subject.vjp(residuals, g)
    fresh = subject.vjp(subject.forward(inputs)[1], g)
    hidden, written = "hidden state", "overwritten"
    rules = (
        (again, y, "a second forward of the same inputs gives other bits", hidden),
        (twice, cotangents, "a second vjp of the same residuals and g gives other bits", hidden),
        (fresh, cotangents, "vjp gives other bits after another forward", hidden),
        (inputs, kept_inputs, "forward or vjp writes to its inputs", written),
        (pytree.leaves(residuals), kept_residuals, "vjp writes to its residuals", written),
    )
    faults = [(message, cause) for a, b, message, cause in rules if not same_bits(a, b)]
    if not (subject.shares_memory or subject.writes):
        faults += _shared(subject, inputs, g)
    for message, cause in faults:
        examination.find("purity", message, dtype=dtype, cause=cause)


def check_linearity(examination: Examination, dtype: str) -> None:
    """Require zero for zero g, k times the result for k·g to the bit, and the sum for a sum."""
    subject = examination.subject
    inputs, g = cast(examination.draws[0], dtype)
    _, residuals = subject.forward(inputs)
    found: dict[str, str] = {}  # the first breach of each leaf
    once = subject.vjp(residuals, g)
    zero = subject.vjp(residuals, pytree.map(lambda leaf: leaf * 0, g))
    for path, _, leaf in _gradients(inputs, zero):
        if np.any(leaf):
            found.setdefault(path, f"zero g does not give zero in {dtype}: {path}")
    # Scaling by 2 is exact but for subnormals, in an entry or in what it was summed from.
    info = np.finfo(dtype)
    floor = float(info.tiny) / float(info.eps)
    not_linear = f"vjp is not linear in g in {dtype}"
    for factor in (2, -1):
        result = subject.vjp(residuals, pytree.map(lambda leaf, k=factor: leaf * k, g))
        for path, a, b in _gradients(once, result):
            counts = (np.abs(a) > floor) & np.isfinite(a)
            if not np.array_equal(factor * a[counts], b[counts]):
                text = f"{path} for {factor}·g is not {factor} times that for g"
                found.setdefault(path, f"{not_linear}: {text}")
    other = cast(examination.draws[-1][1], dtype)
    second = subject.vjp(residuals, other)
    both = subject.vjp(residuals, pytree.add(g, other))
    gradients = [leaf for pair in (once, second) for leaf in pytree.leaves(pair)]
    largest = max((np.abs(finite(leaf)).max(initial=0.0) for leaf in gradients), default=0.0)
    for (path, a, b), (_, _, total) in zip(
        _gradients(once, second), _gradients(once, both), strict=True
    ):
        size = max(np.abs(finite(leaf)).max(initial=0.0) for leaf in (a, b))
        size = max(size, 1e-2 * largest)  # a gradient may be zero but for rounding
        slack = 1e3 * float(info.eps) ** 0.75 * size  # rounding, even where terms cancel
        counts = np.isfinite(a) & np.isfinite(b)
        if not (np.abs(total - a - b)[counts] <= slack).all():
            found.setdefault(path, f"{not_linear}: {path} of g + h is not that of g plus that of h")
    for path, message in found.items():
        examination.find("linearity", message, leaf=path, dtype=dtype, cause="not linear in g")


def like_faults(name: str, primal: Any, cotangent: Any) -> list[Finding]:
    """Compare structure, shapes and dtypes with the primal's; None for an integer leaf."""
    try:
        pairs = pytree.zip_with_path(primal, cotangent)
    except (ValueError, TypeError) as error:
        leaf = _missing_leaf(name, primal, cotangent)
        whose = "the reference's" if name == "y" else "what it is the gradient of"
        where = str(error).removeprefix("trees must have one structure: ").partition("; build")[0]
        return [_fault("structure", leaf, f"{name} has another structure than {whose}: {where}")]
    faults = []
    for path, required, received in pairs:
        place = at(name, path)
        if required.dtype.kind != "f":
            if name != "y" and received is not None:
                message = f"the cotangent of {place} must be None, since integers are labels: got "
                faults.append(_fault("integer cotangent", place, message + describe(received)))
        elif not pytree.is_leaf(received):
            message = f"{place} must be an array: got {describe(received)}"
            cause = "never written" if received is None else "structure"
            faults.append(_fault(cause, place, message))
        elif received.shape != required.shape:
            message = f"{place} must have shape {required.shape}: got {received.shape}"
            faults.append(_fault("shape", place, message))
        elif received.dtype != required.dtype:
            faults.append(_dtype_fault(place, received.dtype, required.dtype))
    return faults


def _fault(cause: str, leaf: str, message: str, explanation: str = "") -> Finding:
    return Finding("contract", message, leaf, cause=cause, explanation=explanation)


def _missing_leaf(name: str, primal: Any, cotangent: Any) -> str:
    """Return the path of the leaf that a tree lacks, if it lacks just one; else of the tree."""
    required, received = (dict(_form(tree) or []) for tree in (primal, cotangent))
    lacking = set(required) - set(received)
    alone = len(lacking) == 1 and "" not in lacking and _form(cotangent) is not None
    return at(name, lacking.pop()) if alone else name


def swapped_faults(inputs: Any, d_params: Any, d_x: Any) -> list[Finding]:
    """Tell whether d_params and d_x came in the other order."""
    params, x, first, second = (_form(tree) for tree in (*inputs, d_params, d_x))
    if params == x or first != x or second != params:
        return []
    message = "vjp must return (d_params, d_x): got them in the other order"
    return [_fault("swapped", "", message, "return d_params first")]


def _form(tree: Any) -> Any:
    """Return paths and shapes of the leaves that have a cotangent."""
    try:
        leaves = pytree.leaves_with_path(tree)
    except TypeError:
        return None
    return [(path, np.shape(leaf)) for path, leaf in leaves if leaf.dtype.kind == "f"]


def _dtype_fault(place: str, received: Any, required: Any, shown: str = "") -> Finding:
    wider = np.dtype(received).itemsize > np.dtype(required).itemsize
    explanation = (
        f"a silent {np.dtype(received)} intermediate: a NumPy scalar or array of that dtype "
        f"{'promotes' if wider else 'narrows'} what it meets; use Python floats and the dtype of x"
    )
    message = f"{place} is {shown or received} where the inputs are {required}"
    return Finding("contract", message, place, str(required), "precision", explanation)


def _stop_at(examination: Examination, faults: list[Finding]) -> None:
    """Add the findings; give up if a structure or shape is wrong."""
    for fault in faults:
        if fault not in examination.report.findings:
            examination.report.findings.append(fault)
    fatal = [f for f in faults if f.cause not in ("precision", "not finite")]
    if fatal:
        raise BrokenLayer(fatal[0])


def _shared(subject: Subject, inputs: Any, g: Any) -> list[tuple[str, str]]:
    """Name the results that lie in the memory of an argument."""
    y, residuals = subject.forward(inputs)
    d_params, d_x = subject.vjp(residuals, g)
    given = {"params": inputs[0], "x": inputs[1], "residuals": residuals, "g": g}
    results = {"y": y, "the gradient of params": d_params, "the gradient of x": d_x}
    return [
        (
            f"{at(name, path)} shares memory with {place}; return a copy, or declare "
            'SHARES_MEMORY = "why" in the module',
            "shared memory",
        )
        for name, tree in results.items()
        for path, leaf in pytree.leaves_with_path(tree)
        for place, array in pytree.leaves_with_path(given)
        if (subject.strict or name != "y" or place.partition(".")[0] != "residuals")
        and _overlap(leaf, array)
    ]


def _overlap(a: Any, b: Any) -> bool:
    if not (isinstance(a, np.ndarray) and np.may_share_memory(a, b)):
        return False
    try:
        return np.shares_memory(a, b, max_work=10**5)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _gradients(inputs: Any, cotangents: Any) -> list[tuple[str, Any, Any]]:
    """Return (path, leaf, cotangent) for every leaf that has a cotangent."""
    d_params, d_x = cotangents
    params, x = inputs
    rows = pytree.zip_with_path({"params": params, "x": x}, {"params": d_params, "x": d_x})
    return [(path, leaf, d_leaf) for path, leaf, d_leaf in rows if d_leaf is not None]
