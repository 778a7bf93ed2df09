"""The checker that proves a hand-written ``vjp`` against JAX, usable from an installed wheel.

>>> from functional_lm.testing import check_vjp
"""

from .cases import Case
from .check import check_vjp
from .differences import check_differences
from .registry import cases, certify, check_layer, names
from .report import LeafReport, Report

__all__ = [
    "Case",
    "LeafReport",
    "Report",
    "cases",
    "certify",
    "check_differences",
    "check_layer",
    "check_vjp",
    "names",
]
