"""One run in several processes: the first leads and writes, the others follow.

The leader sends each command before all compute what it says: begin from a state, make a step, or
stop. So the others need not know when it validates, saves or is interrupted.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from .. import pytree
from ..contract import Array, expect_choice
from ..gradient import ValueAndGrad, value_and_grad
from ..speed.processes import Reduce, beside, distributed, wait, world
from ..speed.sharding import kept_targets
from ..text import EncodedCorpus, Tokenizer, tokenizer_of
from .loop import TrainState, TrainStep

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["Cluster", "Distribution"]

BEGIN, STEP, STOP = range(3)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How the processes that mpiexec started share the work.

    Attributes:
        reduce: how their gradients are added: in the order of the microbatches (tree), so that the
            bits do not depend on the number of processes, or as MPI does it fastest (fast).
    """

    reduce: Reduce = "tree"

    def __post_init__(self) -> None:
        expect_choice("reduce", self.reduce, get_args(Reduce))


class Cluster:
    """The processes of one run.

    Attributes:
        comm: of all processes, of mpi4py.
        machine: of those on this machine.
        distribution: how they share the work.
    """

    def __init__(self, comm: Any, distribution: Distribution | None = None) -> None:
        """Join the processes of ``comm``; all must do so."""
        self.comm, self.machine = comm.Dup(), beside(comm)
        self.distribution = distribution or Distribution()
        self._commands: list[Any] = []

    @classmethod
    def launched(cls, distribution: Distribution) -> "Cluster | None":
        """Return the processes that mpiexec started with this one, or None without mpiexec.

        Raises:
            ImportError, ValueError: as `world`.
            ValueError: without mpiexec, for a distribution that one process has no use for.
        """
        if (comm := world()) is not None:
            return cls(comm, distribution)
        for field in dataclasses.fields(distribution):
            if (value := getattr(distribution, field.name)) != field.default:
                raise ValueError(
                    f"{field.name} is for several processes: got {value!r} and one process; leave "
                    "it out, or start with mpiexec"
                )
        return None

    @property
    def leads(self) -> bool:
        """Whether this process leads."""
        return self.comm.rank == 0

    @property
    def reads(self) -> bool:
        """Whether this process reads the text for those on its machine."""
        return self.machine.rank == 0

    def gradient(self, microbatches: int, n_threads: int) -> ValueAndGrad:
        """Return what takes the place of `value_and_grad`."""
        return distributed(
            value_and_grad,
            self.comm,
            microbatches=microbatches,
            n_threads=n_threads,
            weight=kept_targets,
            reduce=self.distribution.reduce,
        )

    def share(self, experiment: "Experiment") -> "Experiment":
        """Give tokens and tokenizer to the others on this machine; see `shared`.

        Returns:
            The experiment, with its tokens in the memory that all on this machine share.
        """
        tokenizer = experiment.tokenizer.to_json()
        arrays: list[Any] = [experiment.tokens, experiment.held_out]
        if not all(type(one) is np.ndarray for one in arrays):  # maps of files: all can have them
            self._tell(self.machine, json.dumps([tokenizer, None, None, None]))
            return experiment
        with tempfile.NamedTemporaryFile(prefix="functional-lm-") as file:
            for one in arrays:
                file.write(np.ascontiguousarray(one).data)
            file.flush()
            parts = [[str(one.dtype), one.size] for one in arrays]
            self._tell(
                self.machine, json.dumps([tokenizer, experiment.text_sha256, file.name, parts])
            )
            tokens, held_out = _maps(file.name, parts)
            wait([self.machine.Ibarrier()])  # all have it open
        return dataclasses.replace(experiment, tokens=tokens, held_out=held_out)

    def shared(self) -> tuple[EncodedCorpus | None, Tokenizer]:
        """Return the text and the tokenizer of the process that `reads`; None for one in files."""
        tokenizer, sha256, name, parts = json.loads(self._tell(self.machine, ""))
        corpus = None
        if name is not None:
            tokens, held_out = _maps(name, parts)
            corpus = EncodedCorpus(tokens, held_out, sha256)
            wait([self.machine.Ibarrier()])
        return corpus, tokenizer_of(json.loads(tokenizer))

    def expect_same(self, settings: dict[str, Any]) -> None:
        """Require that all processes train the same.

        Args:
            settings: by name, for JSON.

        Raises:
            ValueError: in a process that has other settings than the first.
        """
        mine = json.loads(json.dumps(settings))
        first = json.loads(self._tell(self.comm, json.dumps(settings)))
        different = [
            f"{name} is {first.get(name)} in process 0 and {mine.get(name)} in process "
            f"{self.comm.rank}"
            for name in sorted(first.keys() | mine.keys())
            if first.get(name) != mine.get(name)
        ]
        if different:
            raise ValueError(
                f"all processes must train the same run: {', '.join(different)}; give them the "
                "same flags"
            )
        wait([self.comm.Ibarrier()])

    def lead(
        self,
        state: TrainState,
        steps_from: Callable[[TrainState], Iterator[TrainStep]],
        max_consecutive_errors: int,
    ) -> Iterator[TrainStep]:
        """Yield steps from a state, which the others make too."""
        self._command(BEGIN, max_consecutive_errors)
        steps = steps_from(self._spread(state))
        while True:
            self._command(STEP)
            if (step := next(steps, None)) is None:
                return
            yield step

    def follow(self, experiment: "Experiment") -> None:
        """Do what the leader says, until it stops."""
        steps: Iterator[TrainStep] = iter(())
        while True:
            command, value = self._commanded()
            if command == STOP:
                return
            if command == BEGIN:
                like = experiment.init_state(experiment.model.init(None))
                state = self._spread(like)
                steps = experiment.run(state, max_consecutive_errors=value)
            else:
                try:
                    next(steps, None)
                except FloatingPointError:  # the leader has it too, and reports it
                    steps = iter(())

    def stop(self) -> None:
        """Release the others from `follow`; nothing happens where this process does not lead."""
        if self.leads:
            self._command(STOP)
            wait(self._commands)

    def _command(self, command: int, value: int = 0) -> None:
        wait(self._commands)
        message = np.array([command, value])
        self._commands = [self.comm.Isend(message, to) for to in range(1, self.comm.size)]

    def _commanded(self) -> tuple[int, int]:
        message = np.empty(2, int)
        wait([self.comm.Irecv(message, 0)])
        return int(message[0]), int(message[1])

    def _spread(self, state: TrainState) -> TrainState:
        """Return the leader's state; the others pass one like it."""

        def one(leaf: Any) -> Any:
            array = np.array(leaf) if self.leads else np.empty(leaf.shape, leaf.dtype)
            wait([self.comm.Ibcast(array, 0)])
            return array if isinstance(leaf, np.ndarray) else array[()]

        step, params, optimizer_state, *faults = state
        counts = one(np.array([step, *faults])).tolist()
        params, optimizer_state = pytree.map(one, (params, optimizer_state))
        return TrainState(counts[0], params, optimizer_state, *counts[1:])

    @staticmethod
    def _tell(comm: Any, text: str) -> str:
        """Return the text of the first process."""
        data = np.frombuffer(text.encode(), np.uint8)
        size = np.array([data.size])
        wait([comm.Ibcast(size, 0)])
        data = data.copy() if comm.rank == 0 else np.empty(size[0], np.uint8)
        wait([comm.Ibcast(data, 0)])
        return data.tobytes().decode()


def _maps(name: str, parts: list[Any]) -> list[Array]:
    maps: list[Array] = []
    for dtype, size in parts:
        offset = sum(one.nbytes for one in maps)
        maps.append(np.memmap(name, dtype, "r", offset=offset, shape=(size,)))
    return maps
