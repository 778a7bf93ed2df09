"""``functional-lm find-lr``."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from ..contract import expect_int, expect_number
from ..files import write_atomic
from ..training import Experiment, TrainConfig
from ..training.range_test import EXPLOSION, RangeTest, range_test
from .display import curve, write_rate_picture
from .flags import Sizes, Source, expect_known, given_sizes, like, new_folder, preset_defaults

Training = like("Training", TrainConfig, without="lr")
RESULT_FILE, PLOT_FILE = "find-lr.json", "find-lr.png"


@dataclasses.dataclass(frozen=True)
class FindLr:
    """Suggest a learning rate from one short run in which it rises until training diverges.

    The flags are those of the training to come; how long it is and how its rate rises and falls
    make no difference.

    Attributes:
        training: how to train.
        sizes: the model.
        source: what to train, and on what.
        lowest: the first learning rate.
        highest: the last, if training does not diverge before.
        test_steps: the updates of the test.
        config: a TOML or JSON file of settings, such as a run's config.json; flags override it.
        out: the folder to write, which must not exist. Not given: runs/find-lr-<time>.
    """

    training: Training = dataclasses.field(default_factory=Training)  # type: ignore[valid-type]
    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    source: Source = dataclasses.field(default_factory=Source)
    lowest: float = 1e-5
    highest: float = 10.0
    test_steps: int = 100
    config: Path | None = None
    out: Path | None = None

    @classmethod
    def defaults(cls, arguments: list[str]) -> "FindLr":
        """Return the settings that --preset and --config set."""
        training, sizes, source, others = preset_defaults(arguments)
        fields = {k: v for k, v in dataclasses.asdict(training).items() if k != "lr"}
        others = {k: v for k, v in others.items() if not k.endswith("_every")}
        return cls(Training(**fields), sizes, source, **expect_known(others, cls))

    def __post_init__(self) -> None:
        """Check the range."""
        expect_number("lowest", self.lowest, low=1e-12)
        expect_number("highest", self.highest, low=2 * self.lowest)
        expect_int("test_steps", self.test_steps, minimum=20)

    def run(self) -> int:
        """Run the test, draw its curve, write it and the picture."""
        out = new_folder(self.out, time.strftime("find-lr-%Y%m%d-%H%M%S"))
        model = self.source.load_model()
        corpus = self.source.load_text()
        settings = dataclasses.asdict(self.training)
        settings["min_lr"] = None  # it belongs to a rate that is not known yet
        experiment = Experiment.build(
            corpus.text, TrainConfig(**settings), model=model, sizes=given_sizes(self.sizes)
        )
        experiment.rehearse()
        out.mkdir(parents=True)
        print(f"text  {corpus.source}")
        print(
            f"test  {self.test_steps} steps with rates from {self.lowest:g} to {self.highest:g}, "
            f"written to {out}\n",
            flush=True,
        )
        test = range_test(
            experiment, lowest=self.lowest, highest=self.highest, steps=self.test_steps
        )
        write_atomic(out / RESULT_FILE, json.dumps(_as_json(test), indent=2) + "\n")
        top = test.smoothed[0] + EXPLOSION
        shown = [min(loss, top) for loss in test.smoothed]
        print(curve({"loss by learning rate": (test.rates, shown)}, x_as_log=True))
        print(f"\nhalf of it learned at {test.halfway:.1e}", end=", ")
        print("not diverged" if test.diverged is None else f"diverged at {test.diverged:.1e}")
        print(f"suggestion  lr {test.suggestion:.2g}; written to {out}")
        if test.diverged is None:
            print("            a guess, as it did not diverge: pass a higher --highest")
        marks = {"half of it learned": test.halfway, "suggestion": test.suggestion}
        if test.diverged is not None:
            marks["diverged"] = test.diverged
        write_rate_picture(
            out / PLOT_FILE,
            {"mean of five": (test.rates, test.smoothed)},
            raw=(test.rates, test.losses),
            marks=marks,
            highest=test.smoothed[0] + 2 * EXPLOSION,
        )
        return 0


def _as_json(test: RangeTest) -> dict[str, Any]:
    return {"suggestion": float(f"{test.suggestion:.2g}"), **test._asdict()}
