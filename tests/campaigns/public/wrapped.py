"""Layers of public repositories, wrapped in a few lines each, and the formulas they stand for.

A wrapper says how the code is called, where its gradients lie, and nothing else. References are
written from the formulas.
"""

import contextlib
import ctypes
import importlib
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.interop import from_object, from_pair, from_torch

REPOSITORIES = {
    "ddbourgin/numpy-ml": "b0359af5285fbf9699d64fd5ec059493228af03e",
    "AkiRusProd/numpy-transformer": "656470af9a5a13cb43975e148085a0aeadb87fda",
    "Ultron09/Numpy-Transformer": "d9e0e9b5716fe918de31ac24e0b9a48cda838a70",
    "rziga/numpy-is-all-you-need": "e437c7b4ee04587b9d0da21a7402b258dcfb8aca",
    "eriklindernoren/ML-From-Scratch": "a2806c6732eee8d27762edd6d864e0c179d8e9e8",
    "oreilly-japan/deep-learning-from-scratch": "07b11618cdb5d5f78ad45464de0730efc07b0a4a",
    "oreilly-japan/deep-learning-from-scratch-2": "842ae31c2bb070f5116275606ed90396626a2c17",
    "whu-pzhang/cs231n": "21a5aaa2382a41a83f7457178f55da7407bfbcf9",
    "karpathy/llm.c": "f1e2ace651495b74ae22d45d1723443fd00ecd3a",
    "joelgrus/joelnet": "65cbc3ff169855d801416d629d290c44c95d001d",
}
"""By name, the commit that the figures are of."""


class Wrapped(NamedTuple):
    """A layer of a repository.

    Attributes:
        repository: its name.
        name: of the layer.
        make: returns ``(layer, params, x, keywords)``; called with the repository on the path.
        reference: ``(params, x, **keywords) -> y`` for JAX.
        paths: folders of the repository to import from.
        dtypes: what the code computes in.
    """

    repository: str
    name: str
    make: Callable[[], tuple[Any, Any, Any, dict[str, Any]]]
    reference: Callable[..., Any]
    paths: tuple[str, ...] = (".",)
    dtypes: tuple[str, ...] = ("float64", "float32")


LAYERS: list[Wrapped] = []
Make = Callable[[], tuple[Any, ...]]


def layer(
    repository: str, name: str, reference: Callable[..., Any], *paths: str, dtypes: Any = None
) -> Callable[[Make], Make]:
    """Add the layer that the decorated function returns, with params, x and keywords or without."""

    def add(make: Make) -> Make:
        def whole() -> tuple[Any, Any, Any, dict[str, Any]]:
            made, params, x, *keywords = make()
            return made, params, x, keywords[0] if keywords else {}

        kinds = dtypes or ("float64", "float32")
        LAYERS.append(Wrapped(repository, name, whole, reference, paths or (".",), kinds))
        return make

    return add


@contextlib.contextmanager
def imported_from(root: Path, paths: tuple[str, ...]) -> Iterator[None]:
    """Import from folders of a repository, in an empty working folder; forget its modules after."""
    before, path, here = set(sys.modules), list(sys.path), Path.cwd()
    root = root.resolve()
    sys.path[:0] = [str(root / p) for p in paths]
    os.environ["CLONE"] = str(root)
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)
            sys.path[:] = path
            for name in set(sys.modules) - before:
                if str(root) in str(getattr(sys.modules[name], "__file__", None)):
                    del sys.modules[name]


def alone(module: str) -> Any:
    """Import a module without what the packages around it import."""
    packages = module.split(".")[:-1]
    for i in range(1, len(packages) + 1):
        package = types.ModuleType(".".join(packages[:i]))
        package.__path__ = [str(Path(os.environ["CLONE"], *packages[:i]))]
        package.__file__ = package.__path__[0]
        sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(module)


def normal(*shape: int) -> Any:
    """Return numbers that are the same in every run, and others for every shape."""
    return np.random.default_rng(shape).standard_normal(shape)


# What they compute


def layer_norm(x: Any, scale: Any, bias: Any, eps: float) -> Any:
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * (jnp.square(centred).mean(-1, keepdims=True) + eps) ** -0.5 * scale + bias


def batch_norm(x: Any, scale: Any, bias: Any, eps: float) -> Any:
    """The same over the first axis."""
    centred = x - x.mean(0)
    return centred * (jnp.square(centred).mean(0) + eps) ** -0.5 * scale + bias


def attention(q: Any, k: Any, v: Any, visible: Any = True) -> Any:
    """softmax(q kᵀ / sqrt(K)) v."""
    scores = q @ jnp.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    return jax.nn.softmax(jnp.where(visible, scores, -jnp.inf)) @ v


def heads_of(x: Any, n: int) -> Any:
    """(B, T, D) -> (B, n, T, D / n)."""
    return x.reshape(*x.shape[:2], n, -1).swapaxes(1, 2)


def joined(x: Any) -> Any:
    """The other way."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def lstm_step(x: Any, h: Any, c: Any, weights: Any, order: str) -> tuple[Any, Any]:
    """One step; ``order`` names the four parts of the pre-activations."""
    parts = jnp.split(x @ weights[0] + h @ weights[1] + weights[2], 4, axis=-1)
    gates = {
        name: (jnp.tanh if name == "g" else jax.nn.sigmoid)(part)
        for name, part in zip(order, parts, strict=True)
    }
    c = gates["f"] * c + gates["i"] * gates["g"]
    return gates["o"] * jnp.tanh(c), c


def convolution(x: Any, weight: Any, bias: Any, stride: int, pad: int) -> Any:
    """Correlation of (B, C, H, W) with (F, C, h, w)."""
    y = jax.lax.conv_general_dilated(x, weight, (stride, stride), [(pad, pad)] * 2)
    return y + bias[:, None, None]


# numpy-ml

NUMPY_ML = "ddbourgin/numpy-ml"


def numpy_ml(module: str) -> Any:
    """Import one of its modules."""
    return alone(f"numpy_ml.neural_nets.{module}")


@layer(NUMPY_ML, "DotProductAttention", lambda p, x: attention(*x))
def _() -> Any:
    made = numpy_ml("layers.layers").DotProductAttention()
    return from_object(made), {}, (normal(2, 5, 3), normal(2, 7, 3), normal(2, 7, 4))


@layer(NUMPY_ML, "Softmax", lambda p, x: jax.nn.softmax(x))
def _() -> Any:
    return from_object(numpy_ml("layers.layers").Softmax()), {}, normal(3, 5)


@layer(NUMPY_ML, "LayerNorm1D", lambda p, x: layer_norm(x, p["scaler"], p["intercept"], 1e-5))
def _() -> Any:
    made, x = numpy_ml("layers.layers").LayerNorm1D(), normal(3, 5)
    made.forward(x, retain_derived=False)
    names = ("scaler", "intercept")
    places = {name: (f"parameters.{name}", f"gradients.{name}") for name in names}
    return from_object(made, places), {"scaler": 1 + normal(5), "intercept": normal(5)}, x


@layer(NUMPY_ML, "Embedding(pool='sum')", lambda p, x: p["W"][x].sum(1, keepdims=True))
def _() -> Any:
    made = numpy_ml("layers.layers").Embedding(3, 7, pool="sum")
    made._init_params()
    ids = np.array([[1, 2, 2], [4, 2, 6], [0, 3, 1]])
    return from_object(made, {"W": ("parameters.W", "gradients.W")}), {"W": normal(7, 3)}, ids


@layer(NUMPY_ML, "GELU", lambda p, x: jax.nn.gelu(x, approximate=True))
def _() -> Any:
    made = numpy_ml("activations").GELU()
    return from_pair(made.fn, lambda g, x: g * made.grad(x)), {}, normal(3, 5)


# numpy-transformer

NUMPY_TRANSFORMER = "AkiRusProd/numpy-transformer"


@layer(
    NUMPY_TRANSFORMER,
    "LayerNormalization",
    lambda p, x: layer_norm(x, p["gamma"], p["beta"], 1e-3),
)
def _() -> Any:
    made = importlib.import_module("transformer.layers.base.layer_norm").LayerNormalization(5)
    places = {"gamma": "grad_gamma", "beta": "grad_beta"}
    return from_object(made, places), {"gamma": 1 + normal(5), "beta": normal(5)}, normal(2, 3, 5)


@layer(NUMPY_TRANSFORMER, "Dense", lambda p, x: x @ p["w"] + p["b"])
def _() -> Any:
    made = importlib.import_module("transformer.layers.base.dense").Dense(3, 5)
    places = {"w": "grad_w", "b": "grad_b"}
    return from_object(made, places), {"w": normal(5, 3), "b": normal(3)}, normal(2, 7, 5)


# Numpy-Transformer

ULTRON = "Ultron09/Numpy-Transformer"
PROJECTIONS = ("W_q", "W_k", "W_v", "W_o")


@layer(
    ULTRON, "RMSNorm", lambda p, x: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["gamma"]
)
def _() -> Any:
    made = importlib.import_module("layers").RMSNorm(5)
    return from_object(made, {"gamma": "grad_gamma"}), {"gamma": 1 + normal(5)}, normal(2, 3, 5)


@layer(
    ULTRON,
    "SwiGLU",
    lambda p, x: (jax.nn.silu(x @ p["W_gate"]) * (x @ p["W_up"])) @ p["W_down"],
)
def _() -> Any:
    made = importlib.import_module("layers").SwiGLU(5, 7)
    params = {"W_gate": normal(5, 7), "W_up": normal(5, 7)[::-1], "W_down": normal(7, 5)}
    return from_object(made, {name: f"grad_{name}" for name in params}), params, normal(2, 3, 5)


def ultron_attention(params: Any, x: Any, *, visible: Any, kept: Any) -> Any:
    """Self-attention with two heads and dropout of the weights."""
    q, k, v = (heads_of(x @ params[f"{n}_w"].T + params[f"{n}_b"], 2) for n in PROJECTIONS[:3])
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    probs = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf)) * kept
    return joined(probs @ v) @ params["W_o_w"].T + params["W_o_b"]


def ultron(dropout: float) -> Any:
    """Return its attention, with the same dropout in every call."""
    kind = importlib.import_module("gpt_numpy").MultiHeadAttention

    class Seeded(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Any, *, visible: Any, kept: Any) -> Any:
            np.random.seed(0)  # noqa: NPY002 (what the code draws from)
            return super().forward(x, np.where(visible, 0.0, -np.inf))

    made = Seeded(6, 2, dropout)
    places = {
        f"{n}_{short}": (f"{n}.{long}", f"{n}.grad_{long}")
        for n in PROJECTIONS
        for short, long in (("w", "weight"), ("b", "bias"))
    }
    draw = np.random.default_rng(0).standard_normal
    params = {name: draw((6, 6) if name.endswith("w") else 6) for name in places}
    np.random.seed(0)  # noqa: NPY002
    kept = (np.random.rand(2, 2, 3, 3) > dropout) / (1 - dropout)  # noqa: NPY002
    return (
        from_object(made, places),
        params,
        normal(2, 3, 6),
        {"visible": np.tri(3, dtype=bool), "kept": kept},
    )


@layer(ULTRON, "MultiHeadAttention(dropout=0)", ultron_attention)
def _() -> Any:
    return ultron(0.0)


@layer(ULTRON, "MultiHeadAttention(dropout=0.4)", ultron_attention)
def _() -> Any:
    return ultron(0.4)


# numpy-is-all-you-need

RZIGA = "rziga/numpy-is-all-you-need"


def rziga_attention(params: Any, x: Any) -> Any:
    """Causal self-attention with two heads."""
    heads = (
        attention(*(x @ params[f"{h}{n}"] for n in "QKV"), jnp.tri(x.shape[1], dtype=bool))
        for h in "01"
    )
    return jnp.concatenate(list(heads), -1) @ params["lin"]


@layer(RZIGA, "SelfAttention", rziga_attention, "src")
def _() -> Any:
    nn = importlib.import_module("nn.layers.transformer")
    made = nn.SelfAttention(2, 5, 3, nn.generate_tril_mask)
    places = {f"{h}{n}": f"heads.{h}.lin_{n}.W" for h in range(2) for n in "QKV"}
    places["lin"] = "lin.W"
    places = {name: (f"{at}.data", f"{at}.grad") for name, at in places.items()}
    params = {name: normal(5, 3, i)[..., 0] for i, name in enumerate(places, 1)}
    return from_object(made, places), params | {"lin": normal(6, 5)}, normal(2, 4, 5)


@layer(RZIGA, "LayerNorm", lambda p, x: layer_norm(x, 1.0, 0.0, 0.0), "src")
def _() -> Any:
    made = importlib.import_module("nn.layers.basic").LayerNorm()
    return from_object(made), {}, normal(2, 3, 5)


# ML-From-Scratch

SCRATCH = "eriklindernoren/ML-From-Scratch"


class Spy:
    """An optimizer that keeps the gradient and changes nothing."""

    def update(self, weight: Any, gradient: Any) -> Any:
        """Keep the gradient."""
        self.gradient = gradient
        return weight


def scratch(name: str, **settings: Any) -> Any:
    """Return one of its layers, which step their optimizer in the backward pass."""
    made = getattr(alone("mlfromscratch.deep_learning.layers"), name)(**settings)
    made.initialize(Spy())
    return made


def scratch_object(made: Any, *names: str) -> Any:
    places = {name: (name, f"{name}_opt.gradient") for name in names}
    return from_object(made, places, forward="forward_pass", backward="backward_pass")


@layer(SCRATCH, "Dense", lambda p, x: x @ p["W"] + p["w0"])
def _() -> Any:
    made = scratch("Dense", n_units=3, input_shape=(5,))
    return scratch_object(made, "W", "w0"), {"W": normal(5, 3), "w0": normal(1, 3)}, normal(7, 5)


@layer(SCRATCH, "BatchNormalization", lambda p, x: batch_norm(x, p["gamma"], p["beta"], 0.01))
def _() -> Any:
    kind = alone("mlfromscratch.deep_learning.layers").BatchNormalization
    made = kind()
    made.set_input_shape((5,))
    made.initialize(Spy())
    params = {"gamma": 1 + normal(5), "beta": normal(5)}
    return scratch_object(made, "gamma", "beta"), params, normal(7, 5)


def recurrent(params: Any, x: Any) -> Any:
    """y_t = V h_t with h_t = tanh(U x_t + W h_{t-1})."""

    def step(h: Any, x_t: Any) -> Any:
        h = jnp.tanh(x_t @ params["U"].T + h @ params["W"].T)
        return h, h @ params["V"].T

    _, y = jax.lax.scan(
        step, jnp.zeros((x.shape[0], params["W"].shape[0]), x.dtype), x.swapaxes(0, 1)
    )
    return y.swapaxes(0, 1)


@layer(SCRATCH, "RNN", recurrent)
def _() -> Any:
    made = scratch("RNN", n_units=3, input_shape=(4, 5), bptt_trunc=4)
    params = {"U": normal(3, 5), "V": normal(5, 3), "W": normal(3, 3) / 2}
    return scratch_object(made, *params), params, normal(2, 4, 5)


# Deep Learning from Scratch

BOOK, BOOK_2 = (f"oreilly-japan/deep-learning-from-scratch{n}" for n in ("", "-2"))


@layer(BOOK, "BatchNormalization", lambda p, x: batch_norm(x, p["gamma"], p["beta"], 1e-6))
def _() -> Any:
    made = importlib.import_module("common.layers").BatchNormalization(np.ones(5), np.zeros(5))
    places = {"gamma": "dgamma", "beta": "dbeta"}
    return from_object(made, places), {"gamma": 1 + normal(5), "beta": normal(5)}, normal(7, 5)


@layer(BOOK, "Convolution", lambda p, x: convolution(x, p["W"], p["b"], 2, 1))
def _() -> Any:
    made = importlib.import_module("common.layers").Convolution(normal(3, 2, 3, 3), normal(3), 2, 1)
    params = {"W": normal(3, 2, 3, 3), "b": normal(3)}
    return from_object(made, {"W": "dW", "b": "db"}), params, normal(2, 2, 5, 7)


@layer(
    BOOK,
    "SoftmaxWithLoss",
    lambda p, x, *, t: (
        -jnp.log(jnp.take_along_axis(jax.nn.softmax(x), t[:, None], 1) + 1e-7).mean()
    ),
)
def _() -> Any:
    made = importlib.import_module("common.layers").SoftmaxWithLoss()
    return from_object(made), {}, normal(3, 5), {"t": np.array([1, 4, 0])}


def book_2_lstm(params: Any, x: Any) -> Any:
    """One step of an LSTM; gates in the order f, g, i, o."""
    return lstm_step(*x, (params["Wx"], params["Wh"], params["b"]), "fgio")


@layer(BOOK_2, "LSTM", book_2_lstm)
def _() -> Any:
    kind = importlib.import_module("common.time_layers").LSTM
    params = {"Wx": normal(5, 12), "Wh": normal(3, 12), "b": normal(12)}
    places = {n: (f"params.{i}", f"grads.{i}") for i, n in enumerate(params)}

    class Step(kind):  # type: ignore[misc, valid-type]
        def backward(self, g: Any) -> Any:
            return super().backward(*g)

    made = Step(*params.values())
    return from_object(made, places), params, (normal(2, 5), normal(2, 3), normal(2, 3)[::-1])


@layer(BOOK_2, "Softmax of (B, T, V)", lambda p, x: jax.nn.softmax(x))
def _() -> Any:
    return from_object(importlib.import_module("common.layers").Softmax()), {}, normal(2, 3, 5)


def time_attention(_: Any, x: Any) -> Any:
    """Softmax attention of decoder states over encoder states, unscaled."""
    encoded, decoded = x
    return jax.nn.softmax(decoded @ encoded.swapaxes(1, 2)) @ encoded


@layer(BOOK_2, "TimeAttention", time_attention, ".", "ch08")
def _() -> Any:
    made = importlib.import_module("attention_layer").TimeAttention()
    return from_object(made), {}, (normal(2, 7, 3), normal(2, 5, 3))


# Course work

COURSE = "whu-pzhang/cs231n"


@layer(COURSE, "layernorm", lambda p, x: layer_norm(*x, 1e-5), "assignment2")
def _() -> Any:
    of = importlib.import_module("cs231n.layers")
    made = from_pair(lambda *x: of.layernorm_forward(*x, {}), of.layernorm_backward, cache=True)
    return made, {}, (normal(3, 5), 1 + normal(5), normal(5))


@layer(COURSE, "batchnorm_alt", lambda p, x: batch_norm(*x, 1e-5), "assignment2")
def _() -> Any:
    of = importlib.import_module("cs231n.layers")
    made = from_pair(
        lambda *x: of.batchnorm_forward(*x, {"mode": "train"}),
        of.batchnorm_backward_alt,
        cache=True,
    )
    return made, {}, (normal(7, 5), 1 + normal(5), normal(5))


@layer(COURSE, "conv_naive", lambda p, x: convolution(*x, 2, 1), "assignment2")
def _() -> Any:
    of = importlib.import_module("cs231n.layers")
    settings = {"stride": 2, "pad": 1}
    made = from_pair(
        lambda *x: of.conv_forward_naive(*x, settings), of.conv_backward_naive, cache=True
    )
    return made, {}, (normal(2, 2, 5, 7), normal(3, 2, 3, 3), normal(3))


def group_norm(_: Any, x: Any) -> Any:
    """Two groups of channels, normalised over the group, as layer norm of each position."""
    x, scale, bias = x
    rows = x.reshape(x.shape[0], 2, -1)
    centred = rows - rows.mean(-1, keepdims=True)
    normed = centred * ((centred**2).mean(-1, keepdims=True) + 1e-5) ** -0.5
    return normed.reshape(x.shape) * scale + bias


@layer(COURSE, "spatial_groupnorm", group_norm, "assignment2")
def _() -> Any:
    of = importlib.import_module("cs231n.layers")
    made = from_pair(
        lambda *x: of.spatial_groupnorm_forward(*x, 2, {}),
        of.spatial_groupnorm_backward,
        cache=True,
    )
    return made, {}, (normal(2, 4, 3, 5), 1 + normal(1, 4, 1, 1), normal(1, 4, 1, 1))


def course_lstm(_: Any, inputs: Any) -> Any:
    """All steps of an LSTM; gates in the order i, f, o, g."""
    x, h, *weights = inputs

    def step(carry: Any, x_t: Any) -> Any:
        h, c = lstm_step(x_t, *carry, weights, "ifog")
        return (h, c), h

    _, y = jax.lax.scan(step, (h, jnp.zeros_like(h)), x.swapaxes(0, 1))
    return y.swapaxes(0, 1)


@layer(COURSE, "lstm", course_lstm, "assignment3")
def _() -> Any:
    of = importlib.import_module("cs231n.rnn_layers")
    made = from_pair(of.lstm_forward, of.lstm_backward, cache=True)
    return made, {}, (normal(2, 4, 5), normal(2, 3), normal(5, 12), normal(3, 12), normal(12))


# llm.c

LLM_C = "karpathy/llm.c"


@layer(LLM_C, "LayerNorm (Python)", lambda p, x: layer_norm(*x, 1e-5), "doc/layernorm")
def _() -> Any:
    made = importlib.import_module("layernorm").LayerNorm
    layer = from_torch(made.forward, made.backward, cache=True)
    return layer, {}, (normal(2, 3, 5), 1 + normal(5), normal(5))


def compiled() -> Any:
    """Compile train_gpt2.c as a library."""
    source = Path(os.environ["CLONE"]) / "train_gpt2.c"
    library = Path.cwd() / "gpt2.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-w", str(source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def call(function: Any, *arguments: Any) -> None:
    """Call a function of C with float32 arrays and ints."""
    kept = [a if isinstance(a, int) else np.ascontiguousarray(a) for a in arguments]
    function(*(a if isinstance(a, int) else a.ctypes.data_as(ctypes.c_void_p) for a in kept))


def c_attention(_: Any, x: Any) -> Any:
    """Causal attention of q, k and v side by side, three heads."""
    q, k, v = (heads_of(part, 3) for part in jnp.split(x, 3, -1))
    return joined(attention(q, k, v, jnp.tri(x.shape[1], dtype=bool)))


@layer(LLM_C, "attention (C)", c_attention, dtypes=("float32",))
def _() -> Any:
    library = compiled()

    def forward(x: Any) -> Any:
        b, t, c = x.shape[0], x.shape[1], x.shape[2] // 3
        out, pre, att = (np.zeros(s, np.float32) for s in ((b, t, c), (b, 3, t, t), (b, 3, t, t)))
        call(library.attention_forward, out, pre, att, x, b, t, c, 3)
        return out, (x, att)

    def backward(g: Any, cache: Any) -> Any:
        x, att = cache
        d_x, d_pre, d_att = (np.zeros(s, np.float32) for s in (x.shape, att.shape, att.shape))
        sizes = (x.shape[0], x.shape[1], x.shape[2] // 3, 3)
        call(library.attention_backward, d_x, d_pre, d_att, g, x, att, *sizes)
        return d_x

    return from_pair(forward, backward, cache=True), {}, normal(2, 5, 18)


@layer(LLM_C, "gelu (C)", lambda p, x: jax.nn.gelu(x, approximate=True), dtypes=("float32",))
def _() -> Any:
    library = compiled()

    def forward(x: Any) -> Any:
        y = np.zeros_like(x, order="C")
        call(library.gelu_forward, y, x, x.size)
        return y

    def backward(g: Any, x: Any) -> Any:
        d_x = np.zeros_like(x, order="C")
        call(library.gelu_backward, d_x, x, g, x.size)
        return d_x

    return from_pair(forward, backward), {}, normal(3, 5)


@layer(LLM_C, "layernorm (C)", lambda p, x: layer_norm(*x, 1e-5), dtypes=("float32",))
def _() -> Any:
    library = compiled()

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        b, t, c = x.shape
        out, mean, rstd = (np.zeros(s, np.float32) for s in (x.shape, (b, t), (b, t)))
        call(library.layernorm_forward, out, mean, rstd, x, weight, bias, b, t, c)
        return out, (x, weight, mean, rstd)

    def backward(g: Any, cache: Any) -> Any:
        x, weight, mean, rstd = cache
        d_x, d_weight, d_bias = (np.zeros(s, np.float32) for s in (x.shape, *[x.shape[-1:]] * 2))
        call(library.layernorm_backward, d_x, d_weight, d_bias, g, x, weight, mean, rstd, *x.shape)
        return d_x, d_weight, d_bias

    return from_pair(forward, backward, cache=True), {}, (normal(2, 3, 5), 1 + normal(5), normal(5))


# joelnet

JOEL = "joelgrus/joelnet"


@layer(JOEL, "Linear", lambda p, x: x @ p["w"] + p["b"])
def _() -> Any:
    made = importlib.import_module("joelnet.layers").Linear(5, 3)
    places = {n: (f"params.{n}", f"grads.{n}") for n in "wb"}
    return from_object(made, places), {"w": normal(5, 3), "b": normal(3)}, normal(7, 5)


@layer(JOEL, "Tanh", lambda p, x: jnp.tanh(x))
def _() -> Any:
    return from_object(importlib.import_module("joelnet.layers").Tanh()), {}, normal(7, 5)
