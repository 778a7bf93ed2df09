"""The checkpoints of a run: the last two, and the one with the lowest validation loss."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..files import FileFormatError
from ..training.loop import TrainState
from .checkpoint import in_form_of, load_checkpoint, save_checkpoint

CHECKPOINTS = "checkpoints"
KEPT = 2
COUNTS = ("step", "notfinite_count", "total_notfinite")
_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class Saved(NamedTuple):
    """What `latest_state` returns."""

    state: TrainState
    metadata: dict[str, Any]


def save_state(
    run: str | Path, state: TrainState, *, metadata: dict[str, Any], best_step: int | None = None
) -> Path:
    """Write a checkpoint of a run, then remove those that are no longer kept.

    Args:
        run: the folder of the run.
        state: of the training.
        metadata: what else shall be in it, for JSON.
        best_step: the step whose checkpoint is kept besides the last ones.

    Raises:
        OSError: if it cannot be written; those before are as they were.
    """
    folder = Path(run) / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{state.step:08}.safetensors"
    counts = {name: getattr(state, name) for name in COUNTS}
    tree = {"params": state.params, "optimizer_state": state.optimizer_state}
    save_checkpoint(path, tree, metadata={**metadata, **counts})
    keep_last(run, best_step)
    return path


def keep_last(run: str | Path, best_step: int | None) -> None:
    """Remove the checkpoints of a run but for the last ones and that of the best step.

    Raises:
        OSError: if one cannot be removed.
    """
    present = _present(run)
    for step in sorted(present)[:-KEPT]:
        if step != best_step:
            present[step].unlink()


def latest_state(
    run: str | Path,
    like: TrainState,
    warn: Callable[[str], None] = lambda message: None,
    check: Callable[[dict[str, Any]], None] = lambda metadata: None,
) -> Saved:
    """Return the newest checkpoint of a run that can be read.

    A damaged one gets another name, so that it is never mistaken for a good one again.

    Args:
        run: the folder of the run.
        like: a state of that model and optimizer.
        warn: called with a sentence for each that is damaged.
        check: called with the metadata of the one that is whole, before its tree is looked at.

    Raises:
        FileFormatError: if there is none, or it is one of another model.
    """
    present = _present(run)
    for step in sorted(present, reverse=True):
        path = present[step]
        try:
            loaded, metadata = load_checkpoint(path)
        except FileFormatError as error:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            warn(f"{error}; it is kept as {aside.name}")
            continue
        check(metadata)
        tree = {"params": like.params, "optimizer_state": like.optimizer_state}
        loaded = in_form_of(tree, loaded, path)
        counts: dict[str, Any] = {name: metadata.get(name) for name in COUNTS}
        if not all(isinstance(count, int) for count in counts.values()):
            raise FileFormatError(path, "is not of a run; pass the folder of one")
        return Saved(TrainState(**counts, **loaded), metadata)
    raise FileFormatError(run, "has no checkpoint that can be read; start the run anew")


def _present(run: str | Path) -> dict[int, Path]:
    """Return the checkpoints by step."""
    folder = Path(run) / CHECKPOINTS
    names = folder.iterdir() if folder.is_dir() else []
    found = ((_NAME.fullmatch(path.name), path) for path in names)
    return {int(match[1]): path for match, path in found if match}
