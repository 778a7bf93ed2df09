"""This library, as a user trains and decodes with it: tuned, and with a shard for each core.

The only place that knows its interface. `_model` knows that of earlier versions too, so that a
checkout from before the architectures (``--against``) can be measured beside this one.
"""

from collections.abc import Callable
from typing import Any

from workload import OPTIMIZER, Workload, draw, resident, timed

try:
    from functional_lm.speed import runtime
    from functional_lm.speed.sharding import sharded
except ImportError:  # before the folder speed/
    from functional_lm.sharding import sharded

    from functional_lm import runtime

Answer = Callable[..., dict[str, Any]]


def step(
    setting: dict[str, Any], tuned: bool = True, shards: int | None = None, **options: Any
) -> tuple[dict[str, Any], Answer]:
    """Return a trainer; with one shard, its gradient is that of the plain `value_and_grad`.

    Options are fields of the model's `Config`.
    """
    if tuned:
        runtime.tune()  # before NumPy is loaded
    training = _training(draw(setting), shards or runtime.cores(), options)

    def steps(n: int) -> dict[str, Any]:
        seconds, losses = timed(n, lambda: next(training).loss)
        return {"seconds": seconds, "losses": losses}

    return about(), steps


def memory(setting: dict[str, Any], **options: Any) -> tuple[dict[str, Any], Answer]:
    """Return a trainer that answers with its memory; options are fields of `Config`."""
    runtime.tune()
    import functional_lm.training  # noqa: F401  # an import belongs to the base

    said, base = about(), resident()["now"]
    _, train = step(setting, **options)

    def steps(n: int) -> dict[str, Any]:
        return {"losses": train(n)["losses"], "base": base, "peak": resident()["peak"]}

    return said, steps


def generation(
    setting: dict[str, Any],
    n_prompt: int,
    n_new: int,
    gain: float,
    trained: str | None = None,
    temperature: float = 0.0,
    **options: Any,
) -> tuple[dict[str, Any], Answer]:
    """Return a decoder of the first prompts, greedy unless there is a temperature.

    Options are keywords of `generate`, such as ``speculate``.
    """
    runtime.tune()
    from functional_lm import generation as library

    given = draw(setting, gain, trained)
    decoder = _model(given)[2]()
    if temperature:
        options |= {"key": (0,), "transform": library.temperature(temperature)}

    def texts(batch: int, alone: int = 1) -> dict[str, Any]:
        """Decode a batch; or with a batch of 1, so many prompts one after another."""
        prompts = given.tokens[0, : max(batch, alone), :n_prompt]
        before = [getattr(decoder, name, 0) for name in ("accepted", "drafted")]

        def decode() -> list[list[int]]:
            if batch == 1:
                return [
                    list(library.generate(decoder, prompt, max_new_tokens=n_new, **options))
                    for prompt in prompts
                ]
            steps = library.generate_batch(decoder, prompts, max_new_tokens=n_new)
            return [list(text) for text in zip(*steps, strict=True)]

        (seconds,), (tokens,) = timed(1, decode)
        now = [getattr(decoder, name, 0) for name in ("accepted", "drafted")]
        drafts = [b - a for a, b in zip(before, now, strict=True)]
        return {"seconds": [seconds / alone], "tokens": tokens, "drafts": drafts}

    return about(), texts


def trained(setting: dict[str, Any], steps: int, path: str) -> tuple[dict[str, Any], Answer]:
    """Return what trains a setting on Tiny Shakespeare and writes it for `workload.draw`.

    The prompts are held-out text.
    """
    runtime.tune()
    import numpy as np

    from functional_lm import pytree
    from functional_lm.text import load_corpus
    from functional_lm.training import Experiment, TrainConfig

    def train() -> dict[str, Any]:
        given = {name: setting[name] for name in ("d_model", "n_layers", "n_heads", "d_ff")}
        S = setting["seq_len"]
        config = TrainConfig(steps=steps, batch_size=8, seq_len=S)
        experiment = Experiment.build(load_corpus().text, config, sizes=given)
        *_, last = experiment.run()
        params = last.state.params
        names = {"mixer": "qkv", "mixer.out": "out", "mlp.up": "gate_up", "mlp.down": "down"}
        names |= {"mixer.qkv": "qkv"}
        flat = {}
        for leaf_path, leaf in pytree.leaves_with_path(params):
            stem = leaf_path.rpartition(".")[0]  # without "weight" or "scale"
            for long, short in names.items():
                stem = stem.removesuffix(long) + short if stem.endswith(f".{long}") else stem
            flat[stem] = leaf
        held_out = np.asarray(experiment.held_out)[: 64 * (S + 1)].reshape(1, 64, S + 1)
        np.savez(path, tokens=held_out.astype(np.int32), **flat)
        return {"seconds": [], "loss": experiment.validation_loss(params, limit=2**16)}

    return about(), train


def bandwidth(n_bytes: int) -> tuple[dict[str, Any], Answer]:
    """Return readers of a large array on all cores: a sum, two products with a vector, a copy."""
    runtime.tune()
    import numpy as np

    from functional_lm.speed import threads

    rows = np.ones((n_bytes // 2**16, 2**14), np.float32)
    half, x, y = len(rows) // 2, np.ones(rows.shape[1], np.float32), np.ones(len(rows), np.float32)
    readers: dict[str, Callable[[], Any]] = {
        "sum": lambda: threads.run([rows[:half].sum, rows[half:].sum]),
        "matrix · vector": lambda: rows.dot(x),
        "vector · matrix": lambda: y.dot(rows),
        "copy": lambda: np.copyto(rows[:half], rows[half : 2 * half]),
    }
    return about(), lambda name, n: {"seconds": timed(n, readers[name])[0]}


def large(setting: dict[str, Any], **options: Any) -> tuple[dict[str, Any], Answer]:
    """Return a decoder of random weights that steps on its own tokens; options are of `Config`."""
    runtime.tune()
    from functional_lm.generation import Decoder
    from functional_lm.models import build

    model = build("llama", **setting, **options)
    decoder = Decoder(model, model.init((0,)))
    decoder.prefill([range(16)])

    def steps(n: int) -> dict[str, Any]:
        def advance() -> None:
            decoder.step(decoder.likeliest)

        return {"seconds": timed(n, advance)[0]}

    return about() | {"parameters": model.n_parameters}, steps


def sgemm(size: int) -> tuple[dict[str, Any], Answer]:
    """Return a product of square float32 matrices by NumPy's BLAS on all cores."""
    runtime.tune()
    import numpy as np

    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    out = a @ b

    return about(), lambda n: {"seconds": timed(n, lambda: np.matmul(a, b, out=out))[0]}


def _training(given: Workload, shards: int, options: dict[str, Any]) -> Any:
    from functional_lm.optimizers import adamw, chain, clip_by_global_norm
    from functional_lm.training import init_state, train

    def batch_at(number: int) -> tuple[Any, dict[str, Any]]:
        x, y = given.batch(number)
        return x, {"targets": y}

    settings = dict(OPTIMIZER)
    lr, clip = settings.pop("lr"), clip_by_global_norm(settings.pop("max_norm"))
    optimizer = chain(clip, adamw(lr, **settings))
    loss, params, _ = _model(given, **options)
    return train(
        loss,
        init_state(params, optimizer),
        optimizer=optimizer,
        batch_at=batch_at,
        steps=10**6,
        value_and_grad=sharded(shards),
    )


def _model(given: Workload, **options: Any) -> tuple[Any, Any, Callable[[], Any]]:
    """Return the loss as a layer, the parameters, and what makes a decoder of them."""
    from functional_lm import models
    from functional_lm.generation import Decoder

    config = given.setting.model | options
    flat = dict(given.params)
    given.params.clear()  # so that the first ones do not stay in memory
    if hasattr(models, "build"):
        model = models.build("llama", **config)
        names = {"qkv": "mixer.qkv.weight", "out": "mixer.out.weight"}
        names |= {"gate_up": "mlp.up.weight", "down": "mlp.down.weight"}
        params = _tree(_renamed(flat, names))
        return model, params, lambda: Decoder(model, params)

    from functional_lm.training.objective import Objective

    from functional_lm.models import transformer

    for name, leaf in flat.items():
        if name.endswith("gate_up"):  # two planes, not side by side
            flat[name] = leaf.reshape(len(leaf), 2, -1).swapaxes(0, 1).copy()
    names = {"qkv": "attention.qkv", "out": "attention.out"}
    names |= {"gate_up": "mlp.gate_up", "down": "mlp.down"}
    params = _tree(_renamed(flat, names))
    loss = Objective(transformer, transformer.Config(**config))
    return loss, params, lambda: Decoder(params, loss.config)


def _renamed(flat: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    names = names | {"embedding": "embedding.weight"}
    names |= {norm: f"{norm}.scale" for norm in ("norm", "norm1", "norm2")}
    parts = {path: path.rpartition(".") for path in flat}
    return {stem + dot + names[last]: flat[path] for path, (stem, dot, last) in parts.items()}


def _tree(flat: dict[str, Any]) -> dict[str, Any]:
    """Return arrays by path as a tree; the blocks are a tuple."""
    root: dict[str, Any] = {}
    for path, leaf in flat.items():
        *inner, last = path.split(".")
        node = root
        for name in inner:
            node = node.setdefault(name, {})
        node[last] = leaf
    return root | {"blocks": tuple(root["blocks"].values())}


def about() -> dict[str, Any]:
    """Return where the library is and which BLAS NumPy loaded."""
    import numpy  # noqa: F401  # so that there is one to find
    from threadpoolctl import threadpool_info

    import functional_lm

    kept = ("internal_api", "architecture", "version", "num_threads")
    blas = [{key: pool.get(key) for key in kept} for pool in threadpool_info()]
    return {"library": functional_lm.__file__, "blas": blas}
