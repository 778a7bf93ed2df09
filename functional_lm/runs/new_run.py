"""A folder for a new run, that gets its name when it is whole."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .folder import CONFIG_FILE
from .lock import LOCK_FILE, run_lock


@contextlib.contextmanager
def new_run(folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to write a run to; it gets its name when it is whole.

    A run that is there stays until then, and is removed with all that its folder holds.

    Args:
        folder: the name.
        overwrite: put it in the place of a run that is there.

    Raises:
        FileExistsError: if there is something under that name, and not overwrite, or no run.
        RunLockedError: if another process trains there.
        OSError: if it cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as held:
        _remove_abandoned(folder)
        expect_free(folder, overwrite=overwrite)
        if folder.exists():
            held.enter_context(run_lock(folder))
        new, old = _beside(folder, "new"), _beside(folder, "old")
        try:
            new.mkdir(parents=True)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from None
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)


def expect_free(folder: Path, *, overwrite: bool) -> None:
    """Require that there is nothing under a name, or with overwrite a run that nobody trains.

    Raises:
        FileExistsError: if there is.
        RunLockedError: if another process trains there.
    """
    if not folder.exists():
        return
    if (folder / LOCK_FILE).is_file():
        with run_lock(folder):
            pass
    if not (folder / CONFIG_FILE).is_file():
        raise FileExistsError(f"the folder of a run must be new: {folder} exists; pass another")
    if not overwrite:
        raise FileExistsError(
            f"the folder of a run must be new: {folder} holds one; go on with --resume {folder}, "
            "replace it with --overwrite, or pass another"
        )


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}-{os.getpid()}")


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left beside a folder."""
    for path in folder.parent.glob(f".{folder.name}.*-*"):
        what, _, process = path.name.removeprefix(f".{folder.name}.").partition("-")
        if what in ("new", "old") and process.isdigit() and not _alive(int(process)):
            if what == "old" and not folder.exists():
                path.rename(folder)  # it was killed between the two renames
            else:
                shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
