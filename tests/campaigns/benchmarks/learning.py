"""What training with this library reaches, and what saving costs it."""

import contextlib
import dataclasses
import functools
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness import Peer, PeerFailed, Spec, progress, say, summary
from rich.console import Console
from rich.progress import track

PRINTED = {
    0: 4.1742,
    100: 2.4521,
    200: 2.0183,
    500: 1.6234,
    1000: 1.4521,
    1500: 1.3842,
    2000: 1.3521,
}
"""The training losses that the tutorial text prints from which this model comes, by step."""

ROWS = tuple(PRINTED)


def _tuned() -> None:
    from functional_lm.speed import runtime

    runtime.tune()  # before NumPy is loaded


def _sizes(preset: str) -> dict[str, Any]:
    from functional_lm.models import find

    presets = find("llama").PRESETS
    if preset not in presets:
        raise SystemExit(f"unknown preset {preset!r}: choose from {', '.join(presets)}")
    return dict(presets[preset])


def loss_table(
    recipe: str | None = None,
    model: str | None = None,
    preset: str = "tiny",
    n_layers: int | None = None,
    lr: float | None = None,
    min_lr: float | None = None,
    seeds: int = 3,
    at_most: float | None = None,
) -> None:
    """Print a loss table: a recipe on Tiny Shakespeare, mean of some seeds, and what is `PRINTED`.

    Row s is the state after s updates: the training loss is the mean over updates s − 49 to s, the
    validation loss that of all windows of the last tenth of the text that do not overlap.

    Args:
        recipe: such as "best"; not given: the default settings.
        model: an architecture; not given: that of the recipe.
        preset: the sizes of the model.
        n_layers: instead of the preset's.
        lr: the learning rate; not given: the recipe's.
        min_lr: the last learning rate; not given: a tenth.
        seeds: how many.
        at_most: exit with 1 if the last validation loss is above.
    """
    _tuned()
    from functional_lm import training as library
    from functional_lm.text import load_corpus

    corpus = load_corpus("shakespeare")
    if not corpus.source.startswith("Tiny Shakespeare"):
        raise SystemExit(f"the table is of Tiny Shakespeare: got {corpus.source}")
    sizes = _sizes(preset) | ({"n_layers": n_layers} if n_layers else {})
    given = (
        {"steps": ROWS[-1]} | ({"lr": lr} if lr else {}) | ({"min_lr": min_lr} if min_lr else {})
    )
    training: dict[int, list[float]] = {row: [] for row in ROWS}
    validation: dict[int, list[float]] = {row: [] for row in ROWS}
    for seed in range(seeds):
        begin = time.perf_counter()
        made = library.recipe(recipe, model=model, seed=seed, **given)
        made["sizes"] |= sizes
        experiment = library.Experiment.build(corpus.text, **made)
        state = experiment.init_state()
        validation[0].append(experiment.validation_loss(state.params))
        losses: list[float] = []
        steps = experiment.run(state)
        console = Console(stderr=True)
        for step in track(steps, f"seed {seed}", ROWS[-1], console=console, transient=True):
            losses.append(step.loss)
            if step.state.step in ROWS:
                training[step.state.step].append(statistics.fmean(losses[-50:]))
                validation[step.state.step].append(experiment.validation_loss(step.state.params))
        last = validation[ROWS[-1]][-1]
        say(f"seed {seed}: validation {last:.4f}, {time.perf_counter() - begin:.0f} s")
    print(f"{experiment.model.n_parameters:,} parameters")
    print("| step | printed | training | validation |\n|---|---|---|---|")
    for row in ROWS:
        figures = [_with_spread(training[row]) if row else "–", _with_spread(validation[row])]
        print(f"| {row} | {PRINTED[row]} | {' | '.join(figures)} |")
    final = statistics.fmean(validation[ROWS[-1]])
    if at_most is not None and final > at_most:
        raise SystemExit(f"validation {final:.4f} is above {at_most}")


def _with_spread(values: list[float]) -> str:
    """Return the mean, and the largest less the smallest."""
    return f"{statistics.fmean(values):.3f} (spread {max(values) - min(values):.3f})"


def _with_deviation(values: list[float], digits: int) -> str:
    """Return the mean, and the standard deviation of several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def speedrun(only: tuple[str, ...] = ("speedrun", "nanogpt"), seeds: int = 5) -> None:
    """Time recipes, whole runs of them, beside nanoGPT's recipe for CPUs.

    Seconds are those of the training alone: reading, start-up and validation are left out of all.

    Args:
        only: names of recipes, and "nanogpt".
        seeds: how many runs of each.
    """
    _tuned()
    from functional_lm.text import CharTokenizer, load_corpus, split
    from functional_lm.training import Experiment, recipe

    text = load_corpus("shakespeare").text
    tokens, held_out = split(CharTokenizer.train(text).encode(text))
    print("| run | steps | seconds | validation | worst |\n|---|---|---|---|---|")

    def row(name: str, runs: list[dict[str, Any]]) -> None:
        seconds, losses = ([run[key] for run in runs] for key in ("seconds", "validation"))
        figures = f"{_with_deviation(seconds, 1)} | {_with_deviation(losses, 3)}"
        worst = f"{max(losses):.3f}"
        print(f"| {name} | {runs[0]['steps']} | {figures} | {worst} |", flush=True)

    for name in only:
        if name == "nanogpt":
            continue
        runs = []
        for seed in range(seeds):
            experiment = Experiment.build(text, **recipe(name, seed=seed))
            begin = time.perf_counter()
            for step in experiment.run():
                params = step.state.params
            seconds = time.perf_counter() - begin
            loss = experiment.validation_loss(params)
            runs.append({"steps": experiment.steps, "seconds": seconds, "validation": loss})
            say(f"{name}, seed {seed}: {runs[-1]}")
        row(f"`--recipe {name}`", runs)
    if "nanogpt" not in only:
        return
    given = {"tokens": tokens.tolist(), "held_out": held_out.tolist()}
    try:
        with Peer("nanogpt", Spec("peer_nanogpt", "training")) as peer:
            row("nanoGPT's recipe in PyTorch", [peer.ask(seed=n, **given) for n in range(seeds)])
    except PeerFailed as error:
        say(f"nanoGPT's recipe is left out: {error}")


NEVER = 10**9

PARTS: dict[str, dict[str, Any]] = {
    "llama": {},
    **{
        name: {"norm": name}
        for name in ("rms_norm_offset", "layer_norm", "layer_norm_without_bias")
    },
    **{name: {"mlp": name} for name in ("geglu", "geglu_tanh", "reglu", "relu_squared_glu")},
    **{name: {"mlp": name} for name in ("silu", "gelu", "gelu_tanh", "relu", "relu_squared")},
    "parallel block": {"block": "parallel"},
    "ALiBi": {"positions": "alibi"},
    "no positions": {"positions": "none"},
    "half of each key rotated": {"rope_fraction": 0.5},
    "window of 16": {"window": 16},
    "window of 16, every 2nd block full": {"window": 16, "full_every": 2},
    "values of 48": {"value_size": 48},
    "query and key norms": {"qk_norm": True},
    "sinks": {"attention_sinks": True},
    "scores capped at 20": {"attention_soft_cap": 20.0},
    "gated attention": {"gated_attention": True},
    "dropout of attention, 0.1": {"attention_dropout": 0.1},
    "multi_latent_attention": {"mixer": "multi_latent_attention"},
    "linear_attention": {"mixer": "linear_attention"},
    "gated_delta_rule": {"mixer": "gated_delta_rule"},
    "gated_delta_rule, every 2nd block full": {"mixer": "gated_delta_rule", "full_every": 2},
    "mamba2": {"mixer": "mamba2"},
    "mamba2, as many parameters": {"mixer": "mamba2", "expand": 1, "state_size": 64},
    "8 experts, 2 a token": {"experts": 8},
    "7 experts, 1 a token, 1 shared": {
        "experts": 7,
        "experts_per_token": 1,
        "shared_experts": 1,
    },
    "logits capped at 30": {"logit_soft_cap": 30.0},
    "label smoothing, 0.1": {"label_smoothing": 0.1},
    "z-loss, 1e-4": {"z_loss": 1e-4},
}
"""Settings of the architecture ``hybrid`` or of the training that differ from a Llama, by label."""


def ablation(
    only: tuple[str, ...] = tuple(PARTS),
    steps: int = 1000,
    seeds: int = 3,
    rounds: int = 7,
    folder: Path | None = None,
) -> None:
    """Print what each part of a model changes alone: validation loss, step time, parameters.

    Each model trains on Tiny Shakespeare by the default recipe, and its runs are diagnosed. The
    steps are timed apart from that, ten of each model in turn.

    Args:
        only: labels of `PARTS`; the first is what the others are compared with.
        steps: of the training.
        seeds: how many of each.
        rounds: of timed turns; 0 leaves them out.
        folder: where to keep the runs, so that the command resumes if it is interrupted. Not
            given: they are deleted.
    """
    _tuned()
    from functional_lm.health import diagnose
    from functional_lm.runs import Intervals, Session
    from functional_lm.text import load_corpus
    from functional_lm.training import Experiment, TrainConfig

    text = load_corpus("shakespeare").text
    of_training = {field.name for field in dataclasses.fields(TrainConfig)}

    def build(label: str, seed: int) -> Experiment:
        part = PARTS[label]
        settings = {name: value for name, value in part.items() if name in of_training}
        sizes = {name: value for name, value in part.items() if name not in of_training}
        training = TrainConfig(steps=steps, seed=seed, **settings)
        return Experiment.build(text, training, model="hybrid", sizes=_sizes("tiny") | sizes)

    losses: dict[str, list[float]] = {label: [] for label in only}
    findings: dict[str, set[str]] = {label: set() for label in only}
    with tempfile.TemporaryDirectory() as temporary, progress(len(only) * seeds) as done:
        for seed, label in itertools.product(range(seeds), only):
            run = (folder or Path(temporary)) / f"{label}, seed {seed}"
            experiment, rare = build(label, seed), Intervals(eval_every=NEVER)
            with (
                Session.resume(run, experiment, intervals=rare)
                if run.exists()
                else Session.start(run, experiment, intervals=rare) as session
            ):
                for _record in session.train():
                    pass
                losses[label].append(session.records[-1]["val_loss"])
                found = diagnose(session.records, vocab_size=experiment.tokenizer.vocab_size)
            findings[label] |= {finding.name for finding in found}
            say(f"{run.name}: validation {losses[label][-1]:.4f}")
            done()
    runs = {label: build(label, 0).run() for label in only if rounds}
    for steps_of in runs.values():
        next(steps_of)
    times: dict[str, list[float]] = {label: [] for label in only}
    for _ in range(min(rounds, (steps - 1) // 10)):
        for label, steps_of in runs.items():
            begin = time.perf_counter()
            for _step in itertools.islice(steps_of, 10):
                pass
            times[label].append((time.perf_counter() - begin) / 10)
    first = only[0]
    print(f"| part | validation | over {first} | step | parameters | diagnosis |")
    print("|---|---|---|---|---|---|")
    for label in only:
        mean, spread = statistics.fmean(losses[label]), max(losses[label]) - min(losses[label])
        worse = mean - statistics.fmean(losses[first])
        pairs = zip(times[label], times[first], strict=True)
        ratio = f"{summary([one / other for one, other in pairs]).median:.2f}" if rounds else "–"
        size = build(label, 0).model.n_parameters
        named = ", ".join(sorted(findings[label])) or "nothing found"
        print(
            f"| {label} | {mean:.3f} (spread {spread:.3f}) | {worse:+.3f} | {ratio} | {size:,} | "
            f"{named} |"
        )


def tokenizers(
    only: tuple[str, ...] = ("char", "byte", "bpe:1024", "bpe:8192"),
    steps: int = 2000,
    seeds: int = 3,
    preset: str = "tiny",
    folder: Path | None = None,
) -> None:
    """Print bits per byte and time of tokenizers on Tiny Shakespeare at equal compute.

    The first one trains for the given steps of the default recipe, each other one for as many as
    take the same arithmetic: a larger vocabulary has fewer steps, and each reads more text. All
    hold the same text out, and the best of a run's validations counts, on all of that text.

    Args:
        only: what `train --tokenizer` takes.
        steps: of the first one.
        seeds: how many runs of each.
        preset: the sizes of the model.
        folder: where to keep the runs, so that the command resumes if it is interrupted. Not
            given: they are deleted.
    """
    _tuned()
    from functional_lm.runs import Intervals, Session
    from functional_lm.text import load_corpus, make_tokenizer
    from functional_lm.training import Experiment, TrainConfig

    corpus = load_corpus("shakespeare")
    made = {spec: make_tokenizer(spec, corpus) for spec in only}

    def build(spec: str, steps: int, seed: int) -> Experiment:
        config = TrainConfig(steps=steps, seed=seed)
        return Experiment.build(corpus, config, tokenizer=made[spec], sizes=_sizes(preset))

    flops = {}
    for spec in only:
        experiment = build(spec, steps, 0)
        params = experiment.model.init(None)
        flops[spec] = experiment.model.flops(params, experiment.settings.seq_len)
    length = {spec: max(10, round(steps * flops[only[0]] / flops[spec])) for spec in only}
    often = Intervals(eval_every=max(100, steps // 20), eval_tokens=NEVER)
    print("| tokenizer | tokens | bytes each | parameters | steps | bits per byte | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary, progress(len(only) * seeds) as done:
        for spec in only:
            bits, seconds = list[float](), list[float]()
            for seed in range(seeds):
                experiment = build(spec, length[spec], seed)
                run = (folder or Path(temporary)) / f"{spec.replace(':', '-')}, seed {seed}"
                with (
                    Session.resume(run, experiment, intervals=often)
                    if run.exists()
                    else Session.start(run, experiment, intervals=often) as session
                ):
                    for _record in session.train():
                        pass
                    records = session.records
                bits.append(min(r["bits_per_byte"] for r in records if "bits_per_byte" in r))
                seconds.append(sum(record["step_ms"] for record in records) / 1000)
                say(f"{run.name}: {bits[-1]:.4f} bits per byte, {seconds[-1]:.0f} s")
                done()
            each = len(corpus.text[corpus.border :].encode()) / len(experiment.held_out)
            figures = f"{experiment.tokenizer.vocab_size:,} | {each:.2f}"
            figures += f" | {experiment.model.n_parameters:,} | {length[spec]:,}"
            mean = statistics.fmean(seconds)
            print(f"| {spec} | {figures} | {_with_spread(bits)} | {mean:.0f} |", flush=True)


KINDS = {
    "neither": {"checkpoint_every": NEVER, "statistics_every": 0},
    "checkpoints": {"statistics_every": 0},
    "statistics": {"checkpoint_every": NEVER},
    "both": {},
}


def saving(every: int = 100, rounds: int = 8, preset: str = "tiny") -> None:
    """Measure what checkpoints and statistics cost a run of the default recipe.

    Four runs take turns. What is due comes in the middle of a turn, so that what is written in the
    background falls into it. Prints the time of a turn over that of the run without either.

    Args:
        every: steps of a turn, and between two checkpoints or statistics.
        rounds: turns of each run.
        preset: the sizes of the model.
    """
    _tuned()
    from functional_lm.runs import Intervals, Session
    from functional_lm.text import load_corpus
    from functional_lm.training import Experiment, TrainConfig

    text, settings = load_corpus().text, TrainConfig(steps=every * (rounds + 2))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    longest: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def turn(records: Any, steps: int) -> list[float]:
        times = [time.perf_counter()]
        times += [time.perf_counter() for _ in itertools.islice(records, steps)]
        return times

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        done = stack.enter_context(progress((rounds + 1) * len(KINDS)))
        runs = {}
        for kind, changes in KINDS.items():
            often = {"checkpoint_every": every, "statistics_every": every, "eval_every": NEVER}
            experiment = Experiment.build(text, settings, sizes=_sizes(preset))
            session = Session.start(
                f"{folder}/{kind}", experiment, intervals=Intervals(**{**often, **changes})
            )
            runs[kind] = stack.enter_context(session).train()
            turn(runs[kind], every // 2)
            done()
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            first = number % len(KINDS)
            for kind in [*list(KINDS)[first:], *list(KINDS)[:first]]:
                times = turn(runs[kind], every)
                seconds[kind].append(times[-1] - times[0])
                longest[kind].append(max(b - a for a, b in itertools.pairwise(times)))
                done()
    print(f"{every} steps of {preset}: {statistics.median(seconds['neither']):.2f} s")
    print(f"{'':12} {'over neither':>12} {'quartiles':>14} {'longest step, ms':>17}")
    for kind in KINDS:
        pairs = zip(seconds[kind], seconds["neither"], strict=True)
        ratio = summary([one / other for one, other in pairs])
        worst = statistics.median(longest[kind]) * 1000
        spread = f"{ratio.low:.3f}–{ratio.high:.3f}"
        print(f"{kind:12} {ratio.median:12.3f} {spread:>14} {worst:17.1f}")


TUNED = {  # settings, learning rate
    "all weights": ({}, 1e-3),
    "lora": ({"lora_rank": 4}, 1e-2),
    "lora of q and v": ({"lora_rank": 8, "lora_targets": "qkv.q,qkv.v"}, 1e-2),
    "rslora, dropout": ({"lora_rank": 4, "rslora": True, "lora_dropout": 0.05}, 1e-2),
    "dora": ({"lora_rank": 4, "dora": True}, 1e-2),
    "bottleneck": ({"adapter": "bottleneck", "adapter_size": 16}, 1e-2),
    "prefix": ({"adapter": "prefix", "adapter_size": 16}, 3e-1),
    "prompt": ({"adapter": "prompt", "adapter_size": 16}, 3e-2),
}


def adapters(
    preset: str = "tiny",
    steps: int = 1000,
    tuning: int = 1000,
    seed: int = 0,
    only: tuple[str, ...] = tuple(TUNED),
) -> None:
    """Train on one half of Tiny Shakespeare, then tune on the other half in several ways.

    The gain is what tuning takes off the validation loss on the other half, as a share of what
    tuning all weights does. Memory is the peak of what a step allocates, the state of the
    optimizer included.

    Args:
        preset: the sizes of the model.
        steps: of the training on the first half.
        tuning: steps on the second half.
        seed: of everything.
        only: names of `TUNED`; all weights are always tuned too.
    """
    _tuned()
    import tracemalloc

    from functional_lm.models.adapting import AdapterConfig, adapt, adapters_of
    from functional_lm.text import CharTokenizer, load_corpus
    from functional_lm.training import Experiment, TrainConfig

    text = load_corpus("shakespeare").text
    halves = text[: len(text) // 2], text[len(text) // 2 :]
    shared: dict[str, Any] = {"sizes": _sizes(preset), "tokenizer": CharTokenizer.train(text)}
    for step in Experiment.build(halves[0], TrainConfig(steps=steps, seed=seed), **shared).run():
        base = step.state.params
    say(f"trained on the first half: {steps} steps, loss {step.loss:.3f}")
    experiments, states, seconds = {}, {}, {name: [] for name in TUNED}
    peaks, before = {}, math.nan
    for name, (settings, rate) in TUNED.items():
        if name not in ("all weights", *only):
            continue
        experiment = Experiment.build(
            halves[1],
            TrainConfig(steps=tuning, lr=rate, seed=seed),
            adapters=AdapterConfig(**settings),
            **shared,
        )
        experiments[name] = experiment
        states[name] = adapt(experiment.model, base, (seed, 4))
        if name == "all weights":
            before = experiment.validation_loss(base)
        tracemalloc.start()
        for _ in itertools.islice(experiment.run(experiment.init_state(states[name])), 2):
            peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    runs = {name: one.run(one.init_state(states[name])) for name, one in experiments.items()}
    for _ in range(0, tuning, 20):  # in turns, so that all see the same machine
        for name, run in runs.items():
            for step in itertools.islice(run, 20):
                seconds[name].append(step.seconds)
                states[name] = step.state.params
    losses = {name: one.validation_loss(states[name]) for name, one in experiments.items()}
    whole, time_of_whole = before - losses["all weights"], statistics.median(seconds["all weights"])
    print(f"validation loss on the second half before tuning: {before:.3f}")
    print("| tuned | trained | of all | loss | gain | step, ms | over all | memory, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, experiment in experiments.items():
        count = total = experiment.model.n_parameters
        if experiment.model.adapted is not None:
            own = adapters_of(experiment.model, states[name])
            count = sum(leaf.size for leaf in own.values())
        median = statistics.median(seconds[name])
        gain = (before - losses[name]) / whole
        print(
            f"| {name} | {count:,} | {count / total:.1%} | {losses[name]:.3f} | {gain:.0%} | "
            f"{1000 * median:.1f} | {median / time_of_whole:.2f} | {peaks[name] / 1e6:.1f} |"
        )


def sharpness(
    preset: str = "tiny", steps: int = 500, rows: int = 5, products: int = 20, seed: int = 0
) -> None:
    """Train, and print the sharpness on the way: the largest eigenvalue of the curvature.

    That of the Gauss-Newton matrix comes from forward and reverse mode, that of the Hessian from
    differences of the gradient, both on the first batch, in float64, by Lanczos, with how far an
    eigenvalue may be from it. The last column is the lowest eigenvalue of the Hessian; the
    Gauss-Newton matrix has none below zero.

    Args:
        preset: the sizes of the model.
        steps: of training on Tiny Shakespeare.
        rows: of the table.
        products: with each matrix, for one row.
        seed: of everything.
    """
    _tuned()
    from functional_lm.text import load_corpus
    from functional_lm.training import Experiment, TrainConfig

    settings = TrainConfig(steps=steps, seed=seed)
    experiment = Experiment.build(load_corpus("shakespeare"), settings, sizes=_sizes(preset))
    print("| step | loss | Gauss-Newton | Hessian | lowest |\n|---|---|---|---|---|")
    for step, loss, *values in _curvatures(experiment, rows, products):
        cells = [f"{value:.4g} ± {bound:.1g}" for value, bound in values]
        print(f"| {step} | {loss:.3f} | {' | '.join(cells)} |", flush=True)


def _curvatures(experiment: Any, rows: int, products: int) -> Iterator[tuple[Any, ...]]:
    """Yield the step, the loss, and the eigenvalues that `sharpness` prints, with their bounds."""
    from functional_lm import pytree
    from functional_lm.gradient import (
        gauss_newton_product,
        hessian_product,
        lanczos,
        value_and_grad,
    )

    tokens, side = experiment.batch_at(0)
    model, batch = experiment.model, {"targets": side["targets"]}
    state = experiment.init_state()
    shown = {round(i * experiment.steps / (rows - 1)) for i in range(rows)}
    states = itertools.chain([state], (step.state for step in experiment.run(state)))
    for state in states:
        if state.step not in shown:
            continue
        params = pytree.map(lambda leaf: leaf.astype("float64"), state.params)
        key, size = (experiment.settings.seed, 5), {"steps": products}
        by_vector = functools.partial(gauss_newton_product, model.model, params, tokens)
        gauss_newton = list(zip(*lanczos(by_vector, params, key, **size), strict=True))
        by_vector = functools.partial(hessian_product, model, params, tokens, **batch)
        hessian = list(zip(*lanczos(by_vector, params, key, **size), strict=True))
        loss, _ = value_and_grad(model, params, tokens, **batch)
        yield state.step, float(loss), gauss_newton[0], hessian[0], hessian[-1]


RATES = (0.3, 0.6, 1.0, 1.6, 2.6, 4.0, 6.5)
"""Of a sweep, in multiples of the usual rate of the optimizer."""

ALLOWED = 0.03


class Recipe(NamedTuple):
    """A training run for which to find a learning rate."""

    sizes: dict[str, int]
    batch_size: int
    seq_len: int
    steps: int
    corpus: str = "shakespeare"
    optimizer: str = "adamw"


WIDTH_64 = {"d_model": 64, "n_heads": 4, "n_layers": 2}
TINY = {"d_model": 128, "n_heads": 4, "n_layers": 4}
RECIPES = {
    "width 32": Recipe({"d_model": 32, "n_heads": 2, "n_layers": 2}, 8, 16, 300),
    "width 64": Recipe(WIDTH_64, 16, 32, 400),
    "width 64, stdlib": Recipe(WIDTH_64, 16, 32, 300, "stdlib"),
    "tiny": Recipe(TINY, 16, 64, 300),
    "tiny, 600 steps": Recipe(TINY, 16, 64, 600),
    "tiny, stdlib": Recipe(TINY, 16, 64, 300, "stdlib"),
    "width 256": Recipe({"d_model": 256, "n_heads": 8, "n_layers": 4}, 16, 64, 300),
    **{
        f"{name}, {optimizer}": Recipe(sizes, 16, seq_len, 300, optimizer=optimizer)
        for optimizer in ("muon", "lion", "adafactor")
        for name, sizes, seq_len in (("width 64", WIDTH_64, 32), ("tiny", TINY, 64))
    },
}


def find_lr(only: tuple[str, ...] = tuple(RECIPES), seeds: int = 1) -> None:
    """Compare the suggestion of `functional-lm find-lr` with a sweep over learning rates.

    For each recipe and seed: the suggestion, the validation loss of a training with it, and the
    best of the sweep. Exits with 1 if a suggestion is more than 3% worse.

    Args:
        only: names of `RECIPES`.
        seeds: how many of each.
    """
    _tuned()
    import numpy as np

    from functional_lm.text import load_corpus
    from functional_lm.training import Experiment, TrainConfig
    from functional_lm.training.range_test import range_test

    def build(recipe: Recipe, seed: int, **rate: float) -> Experiment:
        settings: dict[str, Any] = recipe._asdict() | {"seed": seed, **rate}
        sizes, corpus = settings.pop("sizes"), load_corpus(settings.pop("corpus"))
        return Experiment.build(corpus.text, TrainConfig(**settings), sizes=sizes)

    def validation(experiment: Experiment) -> float:
        try:
            for step in experiment.run():
                params = step.state.params
        except FloatingPointError:  # diverged
            return math.inf
        loss = experiment.validation_loss(params)
        return loss if math.isfinite(loss) else math.inf

    print("| setting | seed | suggestion | validation | best of the sweep | validation | over |")
    print("|---|---|---|---|---|---|---|")
    worst = -math.inf
    quiet = np.errstate(over="ignore", divide="ignore", invalid="ignore")
    with quiet, progress(len(only) * seeds * (len(RATES) + 2)) as done:
        for name, seed in itertools.product(only, range(seeds)):
            start = build(RECIPES[name], seed)
            suggestion = float(f"{range_test(start).suggestion:.2g}")
            done()
            losses: dict[float, float] = {}
            rates = [factor * start.settings.peak_lr for factor in RATES]
            for rate in (suggestion, *rates):
                losses[rate] = validation(build(RECIPES[name], seed, lr=rate))
                say(f"{name}, seed {seed}, lr {rate:.1e}: validation {losses[rate]:.4f}")
                done()
            best = min(rates, key=losses.__getitem__)
            over = losses[suggestion] / losses[best] - 1
            worst = max(worst, over)
            figures = f"{suggestion:.1e} | {losses[suggestion]:.3f} | {best:.1e}"
            figures += f" | {losses[best]:.3f} | {over:+.1%}"
            print(f"| {name} | {seed} | {figures} |", flush=True)
    if worst > ALLOWED:
        sys.exit(f"a suggestion is {worst:.1%} worse than the best of its sweep")
