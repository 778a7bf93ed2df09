"""Whether all peers compute the same thing; nothing is timed before."""

from collections.abc import Mapping, Sequence

TOLERANCE = 1e-4


class Disagreement(SystemExit):
    """Two peers do not compute the same thing; ends the benchmark with a message."""


def expect_equal_losses(losses: Mapping[str, Sequence[float]]) -> None:
    """Require the same losses of all peers, to `TOLERANCE`, relative to the first peer's.

    Raises:
        Disagreement: naming the peer and the step.
    """
    (first, expected), *others = losses.items()
    for name, received in others:
        if len(received) != len(expected):
            raise Disagreement(
                f"{name} made {len(received)} steps and {first} {len(expected)}; nothing was timed"
            )
        for step, (a, b) in enumerate(zip(expected, received, strict=True)):
            if not abs(a - b) <= TOLERANCE * abs(a):  # also for NaN
                raise Disagreement(
                    f"{name} and {first} must have the same losses: at step {step} they are "
                    f"{b:.6f} and {a:.6f}; nothing was timed"
                )


def expect_equal_tokens(tokens: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """Require the same greedy tokens of all peers.

    Two largest logits may be so close that rounding decides between them; from there on the texts
    differ for good. So at least nine in ten of a batch must be the same to the end, and the first
    token of all.

    Raises:
        Disagreement: naming the peer.
    """
    (first, expected), *others = tokens.items()
    for name, received in others:
        same = sum(a == b for a, b in zip(expected, received, strict=True))
        begin = all(a[0] == b[0] for a, b in zip(expected, received, strict=True))
        if not begin or same < 0.9 * len(expected):
            raise Disagreement(
                f"{name} and {first} must decode the same tokens: {same} of {len(expected)} texts "
                "are the same; nothing was timed"
            )
