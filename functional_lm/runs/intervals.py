"""How often a run does what."""

import dataclasses

from ..contract import expect_int


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How often a run does what besides training.

    Attributes:
        eval_every: steps between two validations.
        checkpoint_every: steps between two checkpoints.
        statistics_every: steps between two rows of statistics of gradients, updates and
            activations in metrics.jsonl; the first is that of step 1. 0: none.
        sample_every: steps between two samples in sample.txt. 0: only one at the end.
    """

    eval_every: int = 250
    checkpoint_every: int = 100
    statistics_every: int = 100
    sample_every: int = 0

    def __post_init__(self) -> None:
        """Check them."""
        expect_int("eval_every", self.eval_every)
        expect_int("checkpoint_every", self.checkpoint_every)
        expect_int("statistics_every", self.statistics_every, minimum=0)
        expect_int("sample_every", self.sample_every, minimum=0)
