"""One run in several processes: the first leads and writes, the others follow.

The leader sends each command before all do what it says: begin from a state, make a step, bring the
state of the optimizer together, or stop. So the others need not know when it validates, saves or is
interrupted.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from .. import pytree
from ..contract import Array, Tree, expect_bool, expect_choice
from ..gradient import value_and_grad
from ..optimizers import GradientTransformation
from ..speed import runtime
from ..speed.processes import (
    Ownership,
    Reduce,
    beside,
    distributed,
    like_without_memory,
    wait,
    world,
)
from ..speed.sharding import kept_targets
from ..text import EncodedCorpus, Tokenizer, tokenizer_of
from .loop import Trainable, TrainState, TrainStep

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["Cluster", "Distribution"]

BEGIN, STEP, WHOLE, MEMORY, STOP = range(5)


class Divided(NamedTuple):
    """The state of an optimizer, of which each process has what it owns."""

    own: Any


class Memory(NamedTuple):
    """What a process takes, in bytes."""

    optimizer_state: int
    peak: int  # of the whole process; 0 where the system does not say


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How the processes that mpiexec started share the work.

    Attributes:
        reduce: how their gradients are added: in the order of the microbatches (tree), so that the
            bits do not depend on the number of processes, or as MPI does it fastest (fast).
        shard_optimizer: divide the state of the optimizer among the processes (ZeRO, stage 1),
            which saves memory; the bits are the same.
    """

    reduce: Reduce = "tree"
    shard_optimizer: bool = False

    def __post_init__(self) -> None:
        expect_choice("reduce", self.reduce, get_args(Reduce))
        expect_bool("shard_optimizer", self.shard_optimizer)


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
        self._inspected = False  # whether the next step is
        self._within_step = False

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

    def run(
        self,
        state: TrainState,
        steps_from: Callable[..., Iterator[TrainStep]],
        *,
        optimizer: GradientTransformation,
        microbatches: int,
        n_threads: int,
        trainable: Trainable | None,
        max_consecutive_errors: int,
        inspect_at: Callable[[int], bool],
    ) -> Iterator[TrainStep]:
        """Return the steps from the leader's state; it makes them by command, see `follow`.

        Args:
            state: where to start; the others only need the shapes of the parameters.
            steps_from: `train`, without what is said here.
            optimizer: for `train`.
            microbatches: the parts of a batch.
            n_threads: how many of them this process computes at once.
            trainable: for `train`.
            max_consecutive_errors: for `train`; the leader's counts.
            inspect_at: for `train`; the leader's counts.
        """
        if self.leads:
            self._command(BEGIN, max_consecutive_errors)
        ownership = None
        step, params, optimizer_state, *faults = state
        counts = self._spread(np.array([step, *faults])).tolist()
        params = pytree.map(self._spread, params)
        trained = params if trainable is None else pytree.partition(params, trainable)[0]
        if self.distribution.shard_optimizer:
            ownership = Ownership(self.comm, trained, optimizer.by_leaf)
            own = optimizer.init(ownership.own(trained))
            optimizer_state = Divided(self._scattered(optimizer_state, own))
            optimizer = _dividing(optimizer)
        else:
            like = optimizer_state if self.leads else optimizer.init(trained)
            optimizer_state = pytree.map(self._spread, like)
        self.state = TrainState(counts[0], params, optimizer_state, *counts[1:])
        gradient = distributed(
            value_and_grad,
            self.comm,
            microbatches=microbatches,
            n_threads=n_threads,
            weight=kept_targets,
            reduce=self.distribution.reduce,
            ownership=ownership,
        )
        return self._steps(
            steps_from(
                self.state,
                optimizer=optimizer,
                value_and_grad=gradient,
                trainable=trainable,
                max_consecutive_errors=max_consecutive_errors,
                inspect_at=inspect_at,
                ownership=ownership,
            ),
            inspect_at,
        )

    def _steps(
        self, steps: Iterator[TrainStep], inspect_at: Callable[[int], bool]
    ) -> Iterator[TrainStep]:
        while True:
            if self.leads:
                self._command(STEP, inspect_at(self.state.step + 1))
            self._within_step = True
            try:
                step = next(steps, None)
            except FloatingPointError:  # at the end of a step, in all processes
                self._within_step = False
                raise
            self._within_step = False
            if step is None:
                return
            self.state = step.state
            yield step

    def follow(self, experiment: "Experiment") -> None:
        """Do what the leader says, until it stops."""
        steps: Iterator[TrainStep] = iter(())
        while True:
            command, value = self._commanded()
            if command == STOP:
                return
            if command == BEGIN:
                steps = experiment.run(
                    TrainState(0, experiment.model.init(None), None),
                    max_consecutive_errors=value,
                    inspect=lambda *of_update: None,
                    inspect_at=lambda step: self._inspected,
                )
            elif command == STEP:
                self._inspected = bool(value)
                with contextlib.suppress(FloatingPointError):  # the leader has it too, and tells
                    next(steps, None)
            elif command == WHOLE:
                self._gathered(value)
            elif command == MEMORY:
                self._memory()

    def whole(self, state: TrainState) -> TrainState:
        """Return a state with all of the optimizer's, as one process has it.

        Raises:
            OSError: if this process was interrupted within a step, or others are at another one.
        """
        if not isinstance(state.optimizer_state, Divided):
            return state
        if self._within_step:
            raise OSError("a step was interrupted; resume from the last checkpoint")
        self._command(WHOLE, state.step)
        return state._replace(optimizer_state=self._gathered(state.step))

    def memory(self) -> list[Memory]:
        """Return what each process takes."""
        self._command(MEMORY)
        return self._memory()

    def stop(self) -> None:
        """Release the others from `follow`; nothing happens where this process does not lead."""
        if self.leads:
            self._command(STOP)
            wait(self._commands)

    def _memory(self) -> list[Memory]:
        size = pytree.buffer_bytes(self.state.optimizer_state, without=self.state.params)
        found = self._all([size, runtime.peak_memory()])
        return [Memory(*row) for row in found.tolist()]

    def _all(self, numbers: Any) -> Array:
        """Return the numbers of all processes, (processes, numbers)."""
        mine = np.array(numbers, np.int64)
        found = np.empty((self.comm.size, mine.size), np.int64)
        wait([self.comm.Iallgather(mine, found)])
        return found

    def _scattered(self, state: Any, own: Any) -> Any:
        """Return what this process owns of the leader's state, in a tree like ``own``."""
        whole = dict(pytree.leaves_with_path(state))
        mine = dict(pytree.leaves_with_path(own))
        self._whole = pytree.map(like_without_memory, state) if self.leads else None
        kinds = {path: str(leaf.dtype) for path, leaf in whole.items()}
        self._kinds = json.loads(self._tell(self.comm, json.dumps(kinds)))
        found: dict[str, Any] = {}
        for path, dtype in self._kinds.items():
            leaf: Any = mine.get(path, np.empty(0, dtype))
            if isinstance(leaf, np.generic):  # all have the same
                found[path] = self._spread(whole[path] if self.leads else leaf)
                continue
            sizes = self._all([leaf.size])[:, 0]
            sent = [np.ravel(whole[path]), sizes] if self.leads else None
            found[path] = np.empty(leaf.shape, dtype)
            wait([self.comm.Iscatterv(sent, found[path], 0)])
        return pytree.map_with_path(lambda path, _: found[path], own)

    def _gathered(self, step: int) -> Any:
        """Return the whole state of the optimizer to the leader."""
        same = (self._all([self.state.step]) == step).all()
        if not same and self.leads:
            raise OSError("the processes are at different steps; resume from the last checkpoint")
        mine = dict(pytree.leaves_with_path(self.state.optimizer_state.own))
        found: dict[str, Any] = {}
        for path, dtype in self._kinds.items() if same else ():
            leaf: Any = mine.get(path, np.empty(0, dtype))
            if isinstance(leaf, np.generic):
                found[path] = leaf
                continue
            sizes = self._all([leaf.size])[:, 0]
            found[path] = np.empty(sizes.sum() if self.leads else 0, dtype)
            received = [found[path], sizes] if self.leads else None
            wait([self.comm.Igatherv(np.ascontiguousarray(leaf), received, 0)])

        def one(path: str, leaf: Any) -> Any:
            return found[path] if isinstance(leaf, np.generic) else found[path].reshape(leaf.shape)

        return pytree.map_with_path(one, self._whole)

    def _command(self, command: int, value: int = 0) -> None:
        wait(self._commands)
        message = np.array([command, value])
        self._commands = [self.comm.Isend(message, to) for to in range(1, self.comm.size)]

    def _commanded(self) -> tuple[int, int]:
        message = np.empty(2, int)
        wait([self.comm.Irecv(message, 0)])
        return int(message[0]), int(message[1])

    def _spread(self, leaf: Any) -> Any:
        """Return the leader's leaf; the others pass one like it."""
        array = np.array(leaf) if self.leads else np.empty(leaf.shape, leaf.dtype)
        wait([self.comm.Ibcast(array, 0)])
        return array if isinstance(leaf, np.ndarray) else array[()]

    @staticmethod
    def _tell(comm: Any, text: str) -> str:
        """Return the text of the first process."""
        data = np.frombuffer(text.encode(), np.uint8)
        size = np.array([data.size])
        wait([comm.Ibcast(size, 0)])
        data = data.copy() if comm.rank == 0 else np.empty(size[0], np.uint8)
        wait([comm.Ibcast(data, 0)])
        return data.tobytes().decode()


def _dividing(optimizer: GradientTransformation) -> GradientTransformation:
    """Return an optimizer whose state is `Divided`."""

    def update(
        grads: Tree, state: Divided, params: Tree, norm: float | None = None
    ) -> tuple[Tree, Divided]:
        updates, own = optimizer.update(grads, state.own, params, norm)
        return updates, Divided(own)

    return optimizer._replace(update=update)


def _maps(name: str, parts: list[Any]) -> list[Array]:
    maps: list[Array] = []
    for dtype, size in parts:
        offset = sum(one.nbytes for one in maps)
        maps.append(np.memmap(name, dtype, "r", offset=offset, shape=(size,)))
    return maps
