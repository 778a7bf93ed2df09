"""The checker: certifies a hand-written ``vjp`` numerically against `jax.vjp`.

>>> from functional_lm.testing import check_vjp

    check       check_vjp: the stages in order        oracle      jax.vjp of the reference
    certify     the same as pytest tests              numeric     differences, without a reference
    registry    this library's layers by name         subject     the layer under test
    cases       inputs for them                       inputs      casts, draws, memory layouts
    golden      values for kernels elsewhere          report      leaves, findings, causes

    stages: conduct, accuracy (with limits), variants, refusals, own_inputs (with changes); explain
    names the likely causes, audit says what the inputs do not test
"""

from .cases import Case
from .certify import certify
from .check import check_vjp
from .golden import Golden, golden
from .limits import ulp_error, unit_in_last_place
from .registry import cases, check_layer, names
from .report import CAUSES, CHECKS, Finding, LeafReport, Report

__all__ = [
    "CAUSES",
    "CHECKS",
    "Case",
    "Finding",
    "Golden",
    "LeafReport",
    "Report",
    "cases",
    "certify",
    "check_layer",
    "check_vjp",
    "golden",
    "names",
    "ulp_error",
    "unit_in_last_place",
]
