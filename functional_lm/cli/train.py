"""``functional-lm train``."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import pytree
from ..contract import Array
from ..models import language_model, transformer
from ..text import CharTokenizer, batch_at, default_corpus, read_corpus, split, windows
from ..training import TrainConfig, evaluate, init_state, save_run, train


@dataclasses.dataclass
class Train:
    """Train a character-level language model on a text, and save it.

    Attributes:
        training: how to train.
        text_file: the text. Not given: Tiny Shakespeare from the folder FUNCTIONAL_LM_DATA, else
            the docstrings of the Python standard library.
        preset: the size of the model.
        out: the folder to write, which must not exist. Not given: runs/<time>.
    """

    training: TrainConfig
    text_file: Path | None = None
    preset: Literal["tiny", "small", "medium"] = "tiny"
    out: Path | None = None

    def run(self) -> None:
        """Train."""
        settings = self.training
        out = self.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        if out.exists():
            raise FileExistsError(f"the folder of a run must be new: {out} exists; pass another")
        corpus = read_corpus(self.text_file) if self.text_file else default_corpus()
        tokenizer = CharTokenizer.train(corpus.text)
        tokens, held_out = split(tokenizer.encode(corpus.text))
        inputs, targets = windows(held_out, seq_len=settings.seq_len)
        config = transformer.Config(
            vocab_size=tokenizer.vocab_size,
            max_seq_len=settings.seq_len,
            **transformer.PRESETS[self.preset],  # type: ignore[arg-type]
        )
        params = language_model.init((settings.seed, 0), config=config)
        _say(f"text        {corpus.source}: {len(corpus.text):,} characters")
        _say(f"vocabulary  {config.vocab_size} characters")
        _say(f"model       {self.preset}: {pytree.count(params):,} parameters")
        _say(f"run         {settings.steps:,} steps, then saved to {out}")

        def batch(step: int) -> tuple[Array, dict[str, Any]]:
            x, y = batch_at(
                tokens,
                (settings.seed, 1),
                step,
                batch_size=settings.batch_size,
                seq_len=settings.seq_len,
            )
            return x, {"targets": y, "config": config, "key": (settings.seed, 2, step)}

        def validation_loss(params: Any) -> float:
            parts = np.array_split(np.arange(len(inputs)), -(-len(inputs) // 64))
            side = {"config": config}
            return evaluate(
                language_model,
                params,
                ((inputs[part], {"targets": targets[part], **side}) for part in parts),
            )

        optimizer = settings.optimizer()
        start = time.perf_counter()
        losses: list[float] = []
        state = init_state(params, optimizer)
        for step in train(
            language_model, state, optimizer=optimizer, batch_at=batch, steps=settings.steps
        ):
            state = step.state
            losses.append(step.loss)
            last = state.step == settings.steps
            if state.step % settings.eval_every == 0 or last:
                _say(
                    f"step {state.step:5}  loss {np.mean(losses[-50:]):.3f}  "
                    f"validation {validation_loss(state.params):.3f}  "
                    f"{time.perf_counter() - start:.0f} s"
                )
        save_run(out, state.params, config, tokenizer)
        _say(f"saved; try: functional-lm generate {out} --prompt 'The '")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
