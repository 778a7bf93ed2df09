"""The checker that proves a hand-written ``vjp`` against JAX, usable from an installed wheel.

>>> from functional_lm.testing import check_vjp
"""

from .cases import Case
from .causes import CAUSES
from .certify import certify
from .check import check_vjp
from .golden import Golden, golden
from .registry import cases, check_layer, names
from .report import CHECKS, Finding, LeafReport, Report
from .ulp import ulp_error, unit_in_last_place

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
