"""What the checkers say about the ports, at awkward inputs and at the fixture that hid a bug."""

import types
from typing import Any, NamedTuple

import numpy as np
from bug_ports import Inputs, Port, layer_of, reference_of
from compare_checkers import complaint
from other_checkers import Checker

from functional_lm import pytree
from functional_lm.testing import Report, check_vjp
from functional_lm.testing.inputs import cast
from functional_lm.testing.oracle import JaxOracle

NAMED = ("right", "half right", "wrong", "unknown", "not caught")


class Verdict(NamedTuple):
    """What one checker says at one set of inputs."""

    caught: bool
    says: str  # about the wrong version
    alarm: str  # about the right version
    named: str = ""  # one of NAMED, by ours alone


def our_verdict(port: type[Port], inputs: Inputs) -> Verdict:
    """Check both versions with `check_vjp`."""
    oracle = JaxOracle(reference_of(port), cast(inputs.keywords, "float64"))
    wrong, right = (checked(port, inputs, oracle, wrong=wrong) for wrong in (True, False))
    says = ", ".join(f"{leaf or 'the layer'}: {cause}" for leaf, cause in wrong.causes.items())
    alarm = "" if right.ok else "; ".join(finding.message for finding in right.findings)
    return Verdict(not wrong.ok, says, alarm, named(port, wrong))


def checked(port: type[Port], inputs: Inputs, oracle: JaxOracle, *, wrong: bool) -> Report:
    """Check one version."""
    params, x, keywords, cotangent = inputs
    layer = layer_of(port, wrong=wrong)
    return check_vjp(layer, params, x, reference=oracle, cotangent=cotangent, **keywords)


def audited(port: type[Port]) -> list[str]:
    """Return what the check says that the friendly fixture does not test."""
    params, x, keywords, cotangent = port.friendly or port.awkward
    layer, reference = layer_of(port, wrong=True), reference_of(port)
    more = {"cotangent": cotangent, "audit": True, "keywords": keywords}
    return check_vjp(layer, params, x, reference=reference, **more).audit


def named(port: type[Port], report: Report) -> str:
    """Grade the causes: right for all leaves, half right for some or by a label that says less."""
    if report.ok:
        return "not caught"
    pairs = []
    for leaf, cause in port.causes.items():
        labels = [report.causes.get(leaf)] if leaf else list(report.causes.values())
        pairs.append((cause in labels, any(label in port.near for label in labels), labels))
    if all(right for right, _, _ in pairs):
        return "right"
    if any(right or near for right, near, _ in pairs):
        return "half right"
    labels = {label for *_, all_labels in pairs for label in all_labels}
    return "unknown" if labels <= {None, "unknown"} else "wrong"


def verdict_of(checker: Checker, port: type[Port], inputs: Inputs) -> Verdict:
    """Check both versions with another checker."""
    wrong, right = layer_of(port, wrong=True), layer_of(port, wrong=False)
    if inputs.cotangent is not None:
        wrong, right = (weighted(layer, inputs.cotangent) for layer in (wrong, right))
    case = types.SimpleNamespace(
        name=port.__name__,
        params=inputs.params,
        x=inputs.x,
        keywords=inputs.keywords,
        right=right,
    )
    says, alarm = (complaint(checker, case, layer) for layer in (wrong, right))
    return Verdict(bool(says), says, alarm)


def weighted(layer: Any, cotangent: Any) -> Any:
    """Return the layer followed by the sum of y times a cotangent: a loss that sends just that."""

    def forward(params: Any, x: Any, **keywords: Any) -> Any:
        y, residuals = layer.forward(params, x, **keywords)
        pairs = zip(pytree.leaves(y), pytree.leaves(cotangent), strict=True)
        return np.asarray(sum((a * b).sum() for a, b in pairs)), residuals

    def vjp(residuals: Any, g: Any) -> Any:
        dtype = np.asarray(g).dtype
        return layer.vjp(residuals, pytree.map(lambda c: (g * c).astype(dtype), cotangent))

    return types.SimpleNamespace(forward=forward, vjp=vjp)
