"""``functional-lm find-lr``."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

from ..contract import expect_fields, expect_int, expect_number
from ..files import write_atomic
from ..training.range_test import EXPLOSION, range_test
from .display import Waiting, curve, write_rate_picture
from .flags import C, Setup, new_folder
from .output import print

RESULT_FILE, PLOT_FILE = "find-lr.json", "find-lr.png"


@dataclasses.dataclass(frozen=True)
class FindLr(Setup[C]):
    """Suggest a learning rate from one short run in which it rises until training diverges.

    Pass the flags of the planned training; its length and its schedule make no difference.

    Attributes:
        lowest: the first learning rate.
        highest: the last, if training does not diverge before.
        test_steps: the updates of the test.
        out: the folder to write, which must not exist. Not given: runs/find-lr-<time>.
    """

    IGNORED: ClassVar = (  # the length and the schedule
        *("lr", "min_lr", "warmup_steps", "steps", "epochs"),
        *("lr_schedule", "decay_share"),
    )

    lowest: float = 1e-5
    highest: float = 10.0
    test_steps: int = 100
    out: Path | None = None

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_number, "lowest", {"low": 1e-12}),
            (expect_number, "highest", {}),
            (expect_int, "test_steps", {"minimum": 20}),
        )
        expect_number("highest", self.highest, low=2 * self.lowest)

    def run(self) -> int:
        """Run the test, draw its curve, write it and the picture."""
        out = new_folder(self.out, "find-lr")
        corpus = self.source.load_text()
        experiment = self.experiment(corpus)
        experiment.rehearse()
        out.mkdir(parents=True)
        print(f"text  {corpus.source}")
        print(
            f"test  {self.test_steps} steps with rates from {self.lowest:g} to {self.highest:g}, "
            f"written to {out}\n",
            flush=True,
        )
        rates = {"lowest": self.lowest, "highest": self.highest}
        with Waiting("testing learning rates") as waiting:
            test = range_test(experiment, **rates, steps=self.test_steps, progress=waiting)
        figures = {"suggestion": float(f"{test.suggestion:.2g}"), **test._asdict()}
        write_atomic(out / RESULT_FILE, json.dumps(figures, indent=2) + "\n")
        top = test.smoothed[0] + EXPLOSION
        shown = [min(loss, top) for loss in test.smoothed]
        print(curve({"loss by learning rate": (test.rates, shown)}, x_as_log=True))
        print(f"\nhalf of the fall of the loss: by lr {test.halfway:.1e}")
        if test.diverged is None:
            print(f"no divergence up to lr {test.rates[-1]:.1e}: the suggestion is a guess;")
            print("pass a higher --highest for a better one")
        else:
            print(f"divergence: at lr {test.diverged:.1e}")
        print(f"suggestion: lr {test.suggestion:.2g}, written to {out}\n")
        print(f"next  functional-lm train --lr {test.suggestion:.2g}{self.flags()}")
        marks = {"half of the fall": test.halfway, "suggestion": test.suggestion}
        if test.diverged is not None:
            marks["divergence"] = test.diverged
        write_rate_picture(
            out / PLOT_FILE,
            {"mean of five": (test.rates, test.smoothed)},
            raw=(test.rates, test.losses),
            marks=marks,
            highest=test.smoothed[0] + 2 * EXPLOSION,
        )
        return 0
