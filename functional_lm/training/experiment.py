"""A run in one value: text, model and settings, put together and checked before anything starts.

In a notebook::

    experiment = Experiment.build(load_corpus(), TrainConfig(steps=500))
    for step in experiment.run():
        if step.state.step % 100 == 0:
            print(step.state.step, step.loss, experiment.validation_loss(step.state.params))
    print(experiment.sample(step.state.params, "ROMEO:", key=(0,), max_new_tokens=200))
"""

import dataclasses
import functools
import math
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import pytree
from ..contract import Array, Key, Tree
from ..generation import Decoder, Transform, generate
from ..gradient import value_and_grad
from ..models import DEFAULT, LanguageModel
from ..models.adapting import AdapterConfig, configs, trained, with_adapters
from ..models.loading import of_config, resolve
from ..optimizers import GradientTransformation, Schedule, expect_gradient
from ..speed.processes import expect_parts
from ..speed.runtime import cores
from ..speed.sharding import kept_targets, sharded
from ..speed.threads import one_thread
from ..text import (
    Corpus,
    EncodedCorpus,
    FileCorpus,
    Mixture,
    Tokenizer,
    batch_at,
    continuation,
    epoch_batch_at,
    make_tokenizer,
    mixed_batch_at,
    shuffled_batch_at,
    steps_per_epoch,
)
from ..text.batches import expect_window
from .cluster import Cluster
from .evaluation import bits_per_byte, text_losses
from .loop import Inspect, Trainable, TrainState, TrainStep, init_state, train
from .settings import DEFAULT_STEPS, TrainConfig

MICROBATCHES = 8
"""The parts of a batch where several processes train and nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run needs.

    Attributes:
        model: the language model.
        tokenizer: from the text.
        settings: how to train, with the number of shards resolved.
        tokens: (N,) the first nine tenths of the text, or of each text of a mixture.
        held_out: (M,) the rest.
        steps: the batches of the run.
        text_sha256: the hash of the text's UTF-8 bytes.
        trainable: which leaves are trained, by their paths; all if None.
        held_out_sizes: (M,) the bytes of the text that each held-out token stands for, where the
            tokenizer's ``token_bytes`` do not say it.
        cluster: the processes that train together, if there are several.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    settings: TrainConfig
    tokens: Array | Mixture
    held_out: Array
    steps: int
    text_sha256: str
    trainable: Trainable | None = None
    held_out_sizes: Array | None = None
    cluster: Cluster | None = None

    @classmethod
    def build(
        cls,
        text: str | Corpus | FileCorpus | EncodedCorpus,
        settings: TrainConfig,
        *,
        model: Any = DEFAULT,
        sizes: dict[str, Any] | None = None,
        tokenizer: Tokenizer | str = "char",
        trainable: Trainable | None = None,
        adapters: AdapterConfig | None = None,
        cluster: Cluster | None = None,
    ) -> "Experiment":
        """Put a run together.

        Args:
            text: to train on; its last tenth is held out, or what a `FileCorpus` says.
            settings: how to train.
            model: the name of an architecture, FILE.py:NAME, an architecture, or a layer from
                tokens to logits; see `models.find`.
            sizes: fields of the architecture's ``Config``; ``max_seq_len`` is ``seq_len`` if not
                given.
            tokenizer: a tokenizer, or what `make_tokenizer` makes one of, such as ``bpe:1024``.
            trainable: tells from the path of a leaf, such as ``blocks.0.norm1.scale``, whether it
                is trained. Not given: all are.
            adapters: to put into the model; they alone are trained.
            cluster: the processes that train together; each builds the same experiment.

        Raises:
            ValueError: for settings that do not fit each other, or a text too short for a window.
        """
        known = Corpus | FileCorpus | EncodedCorpus
        corpus = text if isinstance(text, known) else Corpus(text, "a text")
        if isinstance(tokenizer, str):
            if isinstance(corpus, EncodedCorpus):
                raise ValueError(
                    "an encoded text has a tokenizer: got only its tokens; pass the tokenizer too"
                )
            tokenizer = make_tokenizer(tokenizer, corpus)
        name, architecture = resolve(model)
        given = {field: value for field, value in (sizes or {}).items() if value is not None}
        given = {"vocab_size": tokenizer.vocab_size, "max_seq_len": settings.seq_len} | given
        if settings.isolate_documents:
            given["boundary"] = _boundary(tokenizer)
        if settings.seq_len > given["max_seq_len"]:
            raise ValueError(
                f"seq_len must be at most max_seq_len: got {settings.seq_len} and "
                f"{given['max_seq_len']}; raise max_seq_len or leave it out"
            )
        language_model = of_config(name, architecture, given)
        if settings.isolate_documents:
            _expect_isolation(language_model, architecture)
        if adapters is not None and adapters.kind is not None:
            language_model = with_adapters(language_model, adapters)
            trainable = trained(language_model)
        tokens, held_out = corpus.encode(tokenizer)
        by_token = tokenizer.token_bytes is not None
        for part in tokens.texts if isinstance(tokens, Mixture) else [tokens]:
            expect_window(part, settings.seq_len, "the first nine tenths of the text")
        expect_window(held_out, settings.seq_len, "the last tenth of the text")
        if settings.epochs is None:
            steps = settings.steps or DEFAULT_STEPS
        elif isinstance(tokens, Mixture):
            raise ValueError(
                f"epochs are passes over one text: got epochs={settings.epochs} and a mixture of "
                f"{len(tokens.texts)}; pass steps"
            )
        else:
            size = {"batch_size": settings.batch_size, "seq_len": settings.seq_len}
            steps = settings.epochs * steps_per_epoch(len(tokens), **size)
        if settings.microbatches is settings.shards is None:
            settings = _divided(settings, cluster)
        if cluster is not None:
            expect_parts(settings.parts, cluster.comm)
        return cls(
            *(language_model, tokenizer, settings, tokens, held_out, steps),
            text_sha256=corpus.sha256,
            trainable=trainable,
            held_out_sizes=None if by_token else corpus.held_out_sizes(tokenizer),
            cluster=cluster,
        )

    @property
    def config(self) -> Any:
        """The sizes and settings of the model, resolved."""
        return self.model.config

    @property
    def in_force(self) -> dict[str, Any]:
        """The settings with a value for each that was not given, but for the unused ones."""
        in_force = dataclasses.asdict(self.settings)
        in_force |= {
            "steps": self.steps,
            "lr": self.settings.peak_lr,
            "min_lr": self.schedule(self.steps),
            "warmup_steps": self.settings.warm_up(self.steps),
        }
        return {name: value for name, value in in_force.items() if value is not None}

    @property
    def given(self) -> dict[str, Any]:
        """The settings of the model and of training that were given, or have a default."""
        of_model = dataclasses.asdict(self.model.given or self.model.config)
        for name in ("vocab_size", "boundary"):  # the text decides them
            of_model.pop(name, None)
        settings = of_model | dataclasses.asdict(self.settings)
        for adapters in configs(self.model):
            settings |= adapters.given
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def trained(self) -> str | None:
        """The paths of the leaves that are trained, or None if all are."""
        if self.trainable is None:
            return None
        paths = (path for path, _ in pytree.leaves_with_path(self.model.init((0,))))
        return ", ".join(filter(self.trainable, paths))

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each update."""
        return self.settings.schedule(self.steps)

    @property
    def optimizer(self) -> GradientTransformation:
        """Clipping and the optimizer, with the schedule."""
        return self.settings.make_optimizer(self.schedule, self.model)

    def init_state(self, params: Tree = None) -> TrainState:
        """Return the state before the first update, of parameters from `rehearse` or drawn here."""
        if params is None:
            params = self.model.init((self.settings.seed, 0))
        return init_state(params, self.optimizer, trainable=self.trainable)

    def rehearse(self) -> Tree:
        """Run the model forward and back on one window, and return the first parameters.

        A custom model shows its faults here, before anything is written.

        Raises:
            ValueError: if it raises anything, or its gradient is not like its parameters; with
                the line at fault.
        """
        try:
            params = self.model.init((self.settings.seed, 0))
            if not pytree.leaves(params):
                raise ValueError("init must return parameters to train: got none")
            x, side = self.batch_at(0)
            first = {"targets": side["targets"][:1], "key": side["key"]}
            with one_thread():
                _, grads = value_and_grad(self.model, params, x[:1], **first)
            expect_gradient(grads, params)
            self.model.logits(params, x[:1, :1])  # a sample begins with one token
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"the model fails on its first window: {type(error).__name__}: {error} "
                f"({Path(at.filename).name}, line {at.lineno})"
            ) from error
        return params

    def batch_at(self, step: int) -> tuple[Array, dict[str, Any]]:
        """Return the inputs of an update: tokens, and targets, key and settings by name."""
        draw: Callable[..., tuple[Array, Array]]
        draw = {"random": batch_at, "shuffled": shuffled_batch_at}[self.settings.windows]
        if self.settings.epochs is not None:
            draw = epoch_batch_at
        key = (self.settings.seed, 1)
        size = {"batch_size": self.settings.batch_size, "seq_len": self.settings.seq_len}
        if isinstance(self.tokens, Mixture):
            x, y = mixed_batch_at(draw, self.tokens, key, step, **size)
        else:
            x, y = draw(self.tokens, key, step, **size)
        loss = {name: getattr(self.settings, name) for name in ("label_smoothing", "z_loss")}
        given = {name: value for name, value in loss.items() if value}
        return x, {"targets": y, "key": (self.settings.seed, 2, step), **given}

    def run(
        self,
        state: TrainState | None = None,
        *,
        schedule: Schedule | None = None,
        max_consecutive_errors: int = 0,
        inspect: Inspect | None = None,
        inspect_at: Callable[[int], bool] = lambda step: True,
    ) -> Iterator[TrainStep]:
        """Yield each update, from the start or from a state.

        Args:
            state: where to start.
            schedule: other learning rates than `schedule`.
            max_consecutive_errors: see `train`.
            inspect: see `train`.
            inspect_at: see `train`.
        """
        state = self.init_state() if state is None else state
        model, settings, threads = self.model, self.settings, self.settings.shards or cores()
        if self.trainable is not None:
            model = model.freeze(state.params, self.trainable)
        steps_from = functools.partial(
            train, model, batch_at=self.batch_at, steps=self.steps, inspect=inspect
        )
        common: dict[str, Any] = {
            "optimizer": settings.make_optimizer(schedule or self.schedule, self.model),
            "trainable": self.trainable,
            "max_consecutive_errors": max_consecutive_errors,
            "inspect_at": inspect_at if inspect is not None else lambda step: False,
        }
        if self.cluster is not None:
            parts, threads = settings.parts, min(threads, cores())
            return self.cluster.run(
                state, steps_from, microbatches=parts, n_threads=threads, **common
            )
        gradient = sharded(
            threads,
            accumulation_steps=settings.gradient_accumulation_steps,
            microbatches=settings.microbatches,
            weight=kept_targets,
        )
        return steps_from(state, value_and_grad=gradient, **common)

    def whole(self, state: TrainState) -> TrainState:
        """Return a state of `run` as one process has it: with all of the optimizer's state."""
        return state if self.cluster is None else self.cluster.whole(state)

    def averaged(self, state: TrainState) -> Tree:
        """Return the average of the weights at a state of `run`, or the weights without one."""
        return state.params if self.settings.ema_decay is None else self.whole(state).averaged

    def validation_loss(
        self,
        params: Tree,
        *,
        limit: int | None = None,
        progress: Callable[[float], object] = lambda share: None,
    ) -> float:
        """Return the loss on the held-out text, in nats per token.

        Args:
            params: of the model.
            limit: about as many tokens are enough, the same ones each time; see `text_losses`.
            progress: called now and then with the share that is done, from 0 to 1.
        """
        size, loss = self.settings.seq_len, math.nan
        progress(0.0)
        for share, so_far in text_losses(self.model, params, self.held_out, size, limit=limit):
            progress(share)
            loss = so_far
        return loss

    def bits_per_byte(self, loss: float, *, limit: int | None = None) -> float | None:
        """Return a `validation_loss` with this limit in bits per byte of the text, if known."""
        return bits_per_byte(
            *(loss, self.held_out, self.settings.seq_len),
            token_bytes=self.tokenizer.token_bytes,
            sizes=self.held_out_sizes,
            limit=limit,
        )

    def sample(
        self,
        params: Tree,
        prompt: str,
        *,
        key: Key | None = None,
        max_new_tokens: int,
        transform: Transform | None = None,
    ) -> str:
        """Return the prompt and a continuation; see `generate`."""
        encoded = self.tokenizer.encode(prompt)
        tokens = generate(
            Decoder(self.model, params),
            encoded,
            key=key,
            max_new_tokens=max_new_tokens,
            transform=transform,
        )
        return prompt + "".join(continuation(self.tokenizer, encoded, tokens))


def _divided(settings: TrainConfig, cluster: Cluster | None) -> TrainConfig:
    """Return the settings with the parts of a batch: for one process as many as cores."""
    if cluster is None:
        return dataclasses.replace(settings, shards=min(cores(), settings.batch_size))
    parts = MICROBATCHES * settings.gradient_accumulation_steps
    microbatches = min(parts, settings.batch_size)
    return dataclasses.replace(settings, microbatches=microbatches, gradient_accumulation_steps=1)


def _boundary(tokenizer: Tokenizer) -> int:
    """Return the token between documents.

    Raises:
        ValueError: if the tokenizer has none.
    """
    token = tokenizer.end_of_text
    if token is None:
        raise ValueError(
            "isolate_documents needs a tokenizer with a token for the end of a text: got one of "
            f"kind {tokenizer.kind!r}; choose another, or leave it out"
        )
    return token


def _expect_isolation(model: LanguageModel, architecture: Any) -> None:
    """Require that a model heeds its ``boundary``, which it may inherit and ignore.

    Raises:
        ValueError: if it does not.
    """
    boundary = model.config.boundary
    ignored = "boundary" in getattr(architecture, "IGNORED", ())
    if ignored or getattr(model.model, "boundary", boundary) != boundary:
        raise ValueError(
            f"isolate_documents needs a model that keeps documents apart at its config's boundary: "
            f"{model.name} ignores it; leave it out"
        )
