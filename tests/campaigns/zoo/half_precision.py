"""Tell wrong layers from right ones in half precision: our verdict beside allclose.

python tests/campaigns/zoo/half_precision.py [--dtype float16] [NAME ...]

Every layer of the zoo, with its bugs and without, becomes a kernel in half precision: it computes
in float32 and returns rounded results, with residuals in float32 or rounded too. Those that raise
there are left out, as are faults of conduct, which the numbers do not show. The score of a kernel
is its largest error over the unit of `testing.stages.half_precision`; that of allclose the largest
excess over PyTorch's default tolerances for the dtype. Exits with 1 if the area under the
ROC curve is below 0.99, or a right kernel is not called right.
"""

import argparse
import sys
import warnings
from typing import Any

import ml_dtypes  # noqa: F401 (adds bfloat16 to NumPy)
import numpy as np
from bug_zoo import ALL
from rich.console import Console
from rich.progress import track

from functional_lm import pytree
from functional_lm.contract import is_floating
from functional_lm.testing import check_vjp
from functional_lm.testing.inputs import cast, normal_like
from functional_lm.testing.oracle import JaxOracle
from functional_lm.testing.stages.accuracy import rows
from functional_lm.testing.stages.half_precision import HALF, rounded

ENOUGH = 0.99
TOLERANCES = {"bfloat16": (1.6e-2, 1e-5), "float16": (1e-3, 1e-5)}  # rtol, atol of torch.testing
CONDUCT = {
    *("overwritten", "hidden state", "shared memory", "integer cotangent", "structure"),
    *("layout", "edge shape", "not refused", "exception", "precision"),
}


class Kernel:
    """A layer in half precision.

    Args:
        layer: it computes in float32.
        dtype: of what comes out.
        residuals: whether they are rounded too.
    """

    def __init__(self, layer: Any, dtype: str, residuals: bool) -> None:
        self.layer, self.dtype, self.residuals = layer, dtype, residuals
        self.__name__ = getattr(layer, "__name__", "kernel")

    def forward(self, params: Any, x: Any, **keywords: Any) -> Any:
        """Return y in half precision."""
        inputs, sides = single((params, x)), single(keywords)
        y, residuals = self.layer.forward(*inputs, **sides)
        if self.residuals:
            residuals = single(rounded(residuals, self.dtype))
        return rounded(y, self.dtype), residuals

    def vjp(self, residuals: Any, g: Any) -> Any:
        """Return the gradients in half precision."""
        return rounded(self.layer.vjp(residuals, single(g)), self.dtype)


def single(tree: Any) -> Any:
    """Return the floating leaves in float32."""
    return pytree.map(lambda leaf: leaf.astype(np.float32) if is_floating(leaf) else leaf, tree)


def main() -> int:
    """Print the table of both scores, and what has the wrong verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=HALF, default="bfloat16")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of layers; all if none")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong: list[tuple[float, float]] = []
    right: list[tuple[float, float]] = []
    verdicts, skipped, oracles = list[str](), 0, dict[int, JaxOracle]()
    for bug in track(ALL, console=Console(stderr=True), transient=True):
        if options.names and bug.name.partition(":")[0] not in options.names:
            continue
        key = id(bug.right)
        if key not in oracles:
            oracles = {key: JaxOracle(bug.reference, cast(bug.keywords, "float64"))}
            layers = [(bug.right, right)]
        else:
            layers = []
        if bug.leaves and bug.cause not in CONDUCT:
            layers.append((bug.layer, wrong))
        for layer, scores in layers:
            for residuals in (False, True):
                kernel = Kernel(layer, options.dtype, residuals)
                found = scored(kernel, bug, oracles[key], options.dtype)
                if found is None:
                    skipped += 1
                    continue
                scores.append(found[:2])
                is_wrong = "wrong" in found[2]
                if is_wrong != (scores is wrong) or (scores is right and found[2] != {"right"}):
                    kind = "wrong" if scores is wrong else "right"
                    verdicts.append(f"a {kind} layer is called {', '.join(found[2])}: {bug.name}")
    print(f"{options.dtype}: {len(wrong)} wrong kernels, {len(right)} right ones", end="; ")
    print(f"{skipped} left out that raise\n\n| | area under the ROC curve |\n|---|---|")
    areas = [area([w[i] for w in wrong], [r[i] for r in right]) for i in (0, 1)]
    print(f"| our factor | {areas[0]:.4f} |\n| allclose | {areas[1]:.4f} |\n")
    print("\n".join(verdicts) or "every verdict is right")
    alarms = any(verdict.startswith("a right") for verdict in verdicts)
    return int(areas[0] < ENOUGH or alarms)


def scored(kernel: Kernel, bug: Any, oracle: JaxOracle, dtype: str) -> Any:
    """Return (our score, that of allclose, our verdicts); None if the kernel raises."""
    inputs = rounded(cast((bug.params, bug.x), "float64"), dtype)
    wide = cast(single(inputs), "float64")
    keywords = cast(bug.keywords, "float64")
    report = check_vjp(
        kernel, *wide, reference=oracle, dtypes=dtype, own_inputs=False, keywords=keywords
    )
    if not report.half:
        return None
    factors = [leaf.factor if np.isfinite(leaf.error) else np.inf for leaf in report.half]
    g = rounded(normal_like((0, 9), oracle.output(wide, "float64")), dtype)
    exact = oracle.results(wide, cast(single(g), "float64"), "float64")
    y, residuals = kernel.forward(*inputs, **rounded(keywords, dtype))
    d_params, d_x = kernel.vjp(residuals, g)
    rtol, atol = TOLERANCES[dtype]
    excess = [
        np.max(np.abs(single(mine) - true) / (atol + rtol * np.abs(true)), initial=0.0)
        for _, true, mine, _ in rows(exact, {"y": y, "params": d_params, "x": d_x})
    ]
    return max(factors), np.nan_to_num(max(excess), nan=np.inf), {x.verdict for x in report.half}


def area(positive: list[float], negative: list[float]) -> float:
    """Return how often a wrong kernel scores higher than a right one; half for the same score."""
    a, b = np.array(positive)[:, None], np.array(negative)
    return float(np.mean((a > b) + 0.5 * (a == b)))


if __name__ == "__main__":
    sys.exit(main())
