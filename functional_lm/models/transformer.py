"""The decoder-only transformer: tokens to logits.

Forward: embedding → positions, if they are learned → dropout → blocks → norm → unembedding.
``vjp`` is the forward read upwards. A prompt of learned rows may stand in front of the first block.
With tied embeddings the unembedding reads the embedding's
weight, and the two cotangents of that weight add.

Which layers these are is a value, made by one of the architectures beside this file.

Shapes: tokens (T,) or (B, T); logits (T, V) or (B, T, V). Where a block has an auxiliary loss, the
output and its cotangent are `Stream`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..compose import (
    bind,
    freeze,
    has_step,
    keywords_of_forward,
    keywords_of_init,
    map_members,
    remat,
)
from ..contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_array,
    expect_inputs,
    expect_params,
    expect_residuals,
    expect_shape,
    pack,
    unpack,
)
from ..gradient import ready
from ..layers import dropout as dropout_layer
from ..layers import embedding, unembedding
from ..locate import located
from ..losses import linear_cross_entropy
from ..outline import as_html, describe, tree
from ..prng import fold_in
from .transformer_block import apart

__all__ = [
    "Cache",
    "Layers",
    "Residuals",
    "Transformer",
    "build",
    "documents",
    "forward",
    "init",
    "jvp",
    "positions_in",
    "vjp",
]


class Layers(NamedTuple):
    """The layers of a transformer in order, with their settings bound."""

    vocab_size: int
    max_seq_len: int
    blocks: tuple[Any, ...]  # each a `Block` of the file that runs it, such as `transformer_block`
    norm: Layer
    embedding: Layer
    unembedding: Layer
    positions: Layer | None = None  # adds a learned vector for each position
    prompt: Layer | None = None  # puts learned rows in front of each text; they predict nothing
    dropout: Layer = bind(dropout_layer, rate=0.0)  # after the embedding
    loss: Layer = linear_cross_entropy  # the unembedding and its loss in one
    tied: bool = True  # whether the unembedding's weight is the embedding's
    remat: bool = False  # whether the backward pass runs each block's forward again
    frozen: Tree = None  # None for each leaf below the first that is trained; see `freeze`
    fast_decoder: Any = None  # (params) -> a quicker decoder; see `llama_decoder`
    boundary: int | None = None  # the token that begins a document, which sees nothing before it

    def wiring(self, block: Any) -> Any:
        """Return what runs a block."""
        return remat(block.wiring) if self.remat else block.wiring

    def head_params(self, params: Tree) -> Tree:
        """Return the parameters of the unembedding: if tied, the embedding's weight."""
        return {"weight": params["embedding"]["weight"]} if self.tied else params["unembedding"]


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the model."""

    embedding: Any
    positions: Any
    dropout: Any
    prompt: Any
    blocks: tuple[Any, ...]
    norm: Any
    unembedding: Any
    model: Layers
    batched: bool  # whether tokens came as (B, T)


@located
def init(key: Key | None, *, model: Layers, dtype: Any = np.float32) -> Tree:
    """Make the parameters: ``embedding``, ``blocks``, ``norm``, and what else the model has."""
    params = {
        "embedding": model.embedding.init(fold_in(key, 0), dtype=dtype),
        "blocks": tuple(
            block.wiring.init(fold_in(fold_in(key, 1), i), block=block, dtype=dtype)
            for i, block in enumerate(model.blocks)
        ),
        "norm": model.norm.init(fold_in(key, 2), dtype=dtype),
    }
    if not model.tied:
        params["unembedding"] = model.unembedding.init(fold_in(key, 3), dtype=dtype)
    if model.positions is not None:
        params["positions"] = model.positions.init(fold_in(key, 4), dtype=dtype)
    if model.prompt is not None:
        params["prompt"] = model.prompt.init(fold_in(key, 5), dtype=dtype)
    return params


@located
def forward(
    params: Tree, tokens: Array, *, model: Layers, key: Key | None = None
) -> tuple[Any, Residuals]:
    """Return the logits of the next token at every position. No key: no dropout.

    Args:
        params: from `init`.
        tokens: integers (T,) or (B, T).
        model: the layers.
        key: randomness of dropout.

    Returns:
        Logits (T, V) or (B, T, V), and the residuals.

    Raises:
        TypeError: for tokens that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    _expect_inputs(params, tokens, model)
    batched = tokens.ndim == 2
    tokens = np.atleast_2d(tokens)
    begins = documents(tokens, model.boundary)
    positions = positions_in(begins, tokens.shape[1])

    x, r_embedding = model.embedding.forward(params["embedding"], tokens)  # (B, T, D)
    r_positions = None
    if model.positions is not None:
        x, r_positions = model.positions.forward(params["positions"], x, positions=positions)
    x, r_dropout = model.dropout.forward({}, x, key=fold_in(key, 0))
    r_prompt, T = None, x.shape[1]
    if model.prompt is not None:
        x, r_prompt = model.prompt.forward(params["prompt"], x)  # (B, P + T, D)
        positions = np.arange(x.shape[1])
    r_blocks = []
    for i, block in enumerate(model.blocks):
        x, r_block = model.wiring(block).forward(
            params["blocks"][i],
            x,
            block=block,
            positions=positions,
            key=fold_in(key, i + 1),
            **apart(begins),
        )
        r_blocks.append(r_block)
    x, auxiliary = unpack(x)
    x = x if model.prompt is None else x[:, x.shape[1] - T :]
    x, r_norm = model.norm.forward(params["norm"], x)
    x = x if batched else x[0]
    logits, r_unembedding = model.unembedding.forward(model.head_params(params), x)
    lower = r_embedding, r_positions, r_dropout, r_prompt, tuple(r_blocks)
    return pack(logits, auxiliary), Residuals(*lower, r_norm, r_unembedding, model, batched)


@located
def vjp(residuals: Residuals, g: Any) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the cotangent g of the logits."""
    expect_residuals(residuals, Residuals)
    model = residuals.model
    g, d_auxiliary = unpack(g)
    d_head, g = model.unembedding.vjp(residuals.unembedding, g)
    g = g if residuals.batched else g[None]
    d_norm, g = model.norm.vjp(residuals.norm, g)
    if model.prompt is not None:
        unread = np.zeros((len(g), residuals.prompt.size, g.shape[2]), g.dtype)
        g = np.concatenate([unread, g], axis=1)
    g = pack(g, d_auxiliary)
    frozen = model.frozen or {"blocks": ()}
    d_blocks = []
    for i in reversed(range(len(frozen["blocks"]), len(model.blocks))):
        d_block, g = model.wiring(model.blocks[i]).vjp(residuals.blocks[i], g)
        d_blocks.append(ready(f"blocks.{i}", d_block))
    d_params = {**frozen, "blocks": frozen["blocks"] + tuple(reversed(d_blocks)), "norm": d_norm}
    if model.prompt is not None and "prompt" not in frozen:
        d_params["prompt"], g = model.prompt.vjp(residuals.prompt, g)
    if "embedding" not in frozen:
        _, g = model.dropout.vjp(residuals.dropout, g)
        if model.positions is not None:
            d_params["positions"], g = model.positions.vjp(residuals.positions, g)
        d_embedding, _ = model.embedding.vjp(residuals.embedding, g)
        if model.tied:  # one weight, used twice: the cotangents add, in the memory of the first
            d_embedding = pytree.map(lambda a, b: np.add(a, b, out=a), d_embedding, d_head)
        d_params["embedding"] = d_embedding
    if not model.tied:
        d_params["unembedding"] = d_head
    return d_params, None  # tokens are labels


@located
def jvp(residuals: Residuals, t: tuple[Tree, None]) -> Any:
    """Return the tangent of the logits for ``(t_params, None)``."""
    expect_residuals(residuals, Residuals)
    model = residuals.model
    t_params, _ = t
    t_x = model.embedding.jvp(residuals.embedding, (t_params["embedding"], None))
    if model.positions is not None:
        t_x = model.positions.jvp(residuals.positions, (t_params["positions"], t_x))
    t_x = model.dropout.jvp(residuals.dropout, ({}, t_x))
    T = t_x.shape[1]
    if model.prompt is not None:
        t_x = model.prompt.jvp(residuals.prompt, (t_params["prompt"], t_x))  # (B, P + T, D)
    for block, r_block, own in zip(model.blocks, residuals.blocks, t_params["blocks"], strict=True):
        t_x = model.wiring(block).jvp(r_block, (own, t_x))
    t_x, t_auxiliary = unpack(t_x)
    t_x = model.norm.jvp(residuals.norm, (t_params["norm"], t_x[:, t_x.shape[1] - T :]))
    t_x = t_x if residuals.batched else t_x[0]
    head = model.head_params(t_params)
    return pack(model.unembedding.jvp(residuals.unembedding, (head, t_x)), t_auxiliary)


class Transformer(Layers):
    """A transformer as a layer: with init, forward and vjp, and what decoding and training need."""

    def __repr__(self) -> str:
        members: list[tuple[str, Any]] = [("embedding", self.embedding)]
        members += [("positions", self.positions)] * (self.positions is not None)
        members += [(f"blocks.{i}", block) for i, block in enumerate(self.blocks)]
        members += [("norm", self.norm), ("unembedding", self.unembedding)]
        tied = ", tied embeddings" if self.tied else ""
        title = f"transformer, up to {self.max_seq_len} tokens{tied}"
        return tree(title, members)

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def init(self, key: Key | None, *, dtype: Any = np.float32) -> Tree:
        """Make the parameters; see `init` of this module."""
        return init(key, model=self, dtype=dtype)

    def forward(self, params: Tree, tokens: Array, *, key: Key | None = None) -> tuple[Any, Any]:
        """Return the logits and the residuals; see `forward` of this module."""
        return forward(params, tokens, model=self, key=key)

    def vjp(self, residuals: Residuals, g: Any) -> tuple[Tree, None]:
        """Return ``(d_params, None)``."""
        return vjp(residuals, g)

    def jvp(self, residuals: Residuals, t: tuple[Tree, None]) -> Any:
        """Return the tangent of the logits; see `jvp` of this module."""
        return jvp(residuals, t)

    def with_head(self, head: Layer) -> "Transformer":
        """Return the model with another layer, of the same parameters, for the unembedding."""
        return self._replace(unembedding=head)

    def freeze(self, params: Tree, trainable: Callable[[str], bool]) -> "Transformer":
        """Return the model without the backward of its frozen leaves; see `compose.freeze`.

        Its gradient has None there, and no backward runs below the first leaf that is trained.
        """

        def frozen(layer: Layer, own: Tree, path: str) -> Layer:
            return freeze(layer, own, trainable, path)

        paths = [path for path, _ in pytree.leaves_with_path(params) if trainable(path)]
        lowest = [p.split(".")[1] if p.startswith("blocks.") else p.split(".")[0] for p in paths]
        below = None
        if not {"embedding", "positions"} & {*lowest}:
            first = min((int(name) for name in lowest if name.isdigit()), default=len(self.blocks))
            lower = ["embedding", "positions"] + ["prompt"] * ("prompt" not in lowest)
            first = first if "prompt" in lower else 0
            parts = {name: params[name] for name in lower if name in params}
            below = pytree.map(lambda leaf: None, {**parts, "blocks": params["blocks"][:first]})
        head, path = self.head_params(params), "embedding" if self.tied else "unembedding"
        return self.map_blocks(params, frozen)._replace(
            norm=frozen(self.norm, params["norm"], "norm"),
            embedding=frozen(self.embedding, params["embedding"], "embedding"),
            unembedding=frozen(self.unembedding, head, path),
            loss=frozen(self.loss, head, path),
            frozen=below,
        )

    def map_blocks(
        self, params: Tree, change: Callable[[Layer, Tree, str], Layer]
    ) -> "Transformer":
        """Return the model with each layer of each block changed; see `compose.map_members`."""
        blocks = []
        for i, (block, own) in enumerate(zip(self.blocks, params["blocks"], strict=True)):
            members = {
                name: change(getattr(block, name), own[name], f"blocks.{i}.{name}") for name in own
            }
            blocks.append(block._replace(**members))
        return self._replace(blocks=tuple(blocks))

    @property
    def can_step(self) -> bool:
        """Whether the model decodes with a cache: every mixer has a ``step``."""
        return all(has_step(block.mixer) for block in self.blocks)

    def init_cache(self, params: Tree, batch: int, length: int) -> "Cache":
        """Return a cache for that many texts of up to ``length`` tokens, with the prompt in it."""
        x = None
        if self.prompt is not None:
            weight = params["prompt"]["weight"]
            nothing = np.zeros((batch, 0, weight.shape[1]), weight.dtype)
            x, _ = self.prompt.forward(params["prompt"], nothing)  # (B, P, D)
            length += x.shape[1]
        caches = []
        for own, block in zip(params["blocks"], self.blocks, strict=True):
            cache = block.wiring.init_cache(own, batch, length, block=block)
            if x is not None:
                x, cache = block.wiring.step(own, x, cache, block=block)
            caches.append(cache)
        return Cache(tuple(caches), np.zeros(batch, np.int64), np.zeros(batch, np.int64))

    @located
    def step(
        self,
        params: Tree,
        tokens: Array,
        cache: "Cache",
        *,
        lengths: Array | None = None,
        after_each: bool = False,
    ) -> tuple[Array, "Cache"]:
        """Return the logits (B, V) after the next tokens of each text, and the cache after them.

        Args:
            params: from `init`.
            tokens: integers (B, T), T of them at a time.
            cache: from `init_cache` or an earlier step. It shares memory with the one returned,
                which is used up once another step starts from the first.
            lengths: (B,) how many of the T tokens each text really has, at least one; the rest is
                padding. Default: all.
            after_each: return the logits after each of the tokens, (B, T, V).
        """
        B, T = tokens.shape
        lengths = np.full(B, T) if lengths is None else lengths
        x, _ = self.embedding.forward(params["embedding"], tokens)  # (B, T, D)
        begins = documents(tokens, self.boundary, cache.lengths[:, None], cache.begun[:, None])
        if self.positions is not None:
            positions = cache.lengths[:, None] + np.minimum(np.arange(T), lengths[:, None] - 1)
            positions = positions if begins is None else np.maximum(positions - begins, 0)
            x, _ = self.positions.forward(params["positions"], x, positions=positions)
        caches = []
        for own, block, old in zip(params["blocks"], self.blocks, cache.blocks, strict=True):
            x, new = block.wiring.step(own, x, old, block=block, lengths=lengths, **apart(begins))
            caches.append(new)
        if not after_each:
            x = x[np.arange(B), lengths - 1]  # (B, D)
        x, _ = self.norm.forward(params["norm"], x)
        logits, _ = self.unembedding.forward(self.head_params(params), x)
        begun = cache.begun if begins is None else begins[np.arange(B), lengths - 1]
        return logits, Cache(tuple(caches), cache.lengths + lengths, begun)

    def activations(self, params: Tree, tokens: Array) -> Iterator[tuple[str, str, Array]]:
        """Yield what a forward without dropout computes on the way, as ``(kind, site, array)``.

        ``stream``: x (B, T, D) after the embedding and after each block. ``hidden``: the hidden
        units of a feed-forward layer. ``experts``: the share of the choices (E,) that fell on each
        expert. ``attention``: the weights (B, H, T, T) of a mixer. The last three come from layers
        that offer ``hidden_units``, ``expert_shares`` and ``attention_weights``.
        """
        tokens = np.atleast_2d(tokens)
        begins = documents(tokens, self.boundary)
        positions = positions_in(begins, tokens.shape[1])
        x, _ = self.embedding.forward(params["embedding"], tokens)
        if self.positions is not None:
            x, _ = self.positions.forward(params["positions"], x, positions=positions)
        if self.prompt is not None:
            x, _ = self.prompt.forward(params["prompt"], x)
            positions = np.arange(x.shape[1])
        yield "stream", "embedding", x
        for i, (own, block) in enumerate(zip(params["blocks"], self.blocks, strict=True)):
            x, residuals = block.wiring.forward(
                own, x, block=block, positions=positions, **apart(begins)
            )
            x, _ = unpack(x)
            yield "stream", f"blocks.{i}", x
            if hasattr(block.mlp, "hidden_units"):
                yield "hidden", f"blocks.{i}.mlp", block.mlp.hidden_units(residuals.mlp)
            if hasattr(block.mlp, "expert_shares"):
                yield "experts", f"blocks.{i}.mlp", block.mlp.expert_shares(residuals.mlp)
            if hasattr(block.mixer, "attention_weights"):
                yield "attention", f"blocks.{i}", block.mixer.attention_weights(residuals.mixer)

    def flops(self, params: Tree, context: int) -> int:
        """Return the arithmetic of a forward for each token, with so many tokens before it.

        A matrix of N entries takes 2·N, a multiplication and an addition each; a mixer adds what
        its ``context_flops`` says (Kaplan et al. 2020, section 2.1), and the ``idle_weights`` of a
        mixture of experts do not count.
        """
        matrices = [leaf for leaf in pytree.leaves(params["blocks"]) if leaf.ndim > 1]
        matrices.append(self.head_params(params)["weight"])  # a look-up of an embedding is free
        idle = sum(
            block.mlp.idle_weights(own["mlp"])
            for own, block in zip(params["blocks"], self.blocks, strict=True)
            if hasattr(block.mlp, "idle_weights")
        )
        mixers = [block.mixer for block in self.blocks if hasattr(block.mixer, "context_flops")]
        weights = sum(m.size for m in matrices) - idle
        return 2 * weights + sum(m.context_flops(context) for m in mixers)


class Cache(NamedTuple):
    """What decoding remembers; `Transformer.step` writes to it."""

    blocks: tuple[Any, ...]
    lengths: Array  # (B,) tokens of each text so far
    begun: Array  # (B,) where the document of the last token begins


def build(
    vocab_size: int,
    d_model: int,
    max_seq_len: int,
    blocks: tuple[Any, ...],
    norm: Layer,
    *,
    dropout: float = 0.0,
    init_scale: float | None = None,
    **more: Any,
) -> Transformer:
    """Return a transformer with the usual embedding and unembedding, and dropout everywhere.

    An ``init_scale`` goes to every layer of the blocks whose ``init`` names it; see `linear`.

    Raises:
        ValueError: for a ``boundary`` with a layer that cannot keep documents apart.
    """
    drop = bind(dropout_layer, rate=dropout)
    if more.get("boundary") is not None:
        _expect_apart(blocks)
    model = Transformer(
        vocab_size,
        max_seq_len,
        tuple(block._replace(dropout=drop) for block in blocks),
        norm,
        embedding=bind(embedding, vocab_size=vocab_size, d_model=d_model),
        unembedding=bind(unembedding, vocab_size=vocab_size, d_model=d_model),
        dropout=drop,
        **more,
    )

    def scaled(layer: Any, own: Tree, path: str) -> Any:
        if "init_scale" in keywords_of_init(layer):
            return bind(layer, init_scale=init_scale)
        return map_members(layer, own, scaled, path)

    return model if init_scale is None else model.map_blocks(model.init(None), scaled)


def _expect_apart(blocks: tuple[Any, ...]) -> None:
    """Require that no layer passes anything from one document to the next.

    A layer that mixes positions has a ``step``, and one that keeps documents apart asks where they
    begin.
    """
    for layer in (layer for block in blocks for layer in block):
        if has_step(layer) and "begins" not in keywords_of_forward(layer):
            name = describe(layer).partition("(")[0].strip()
            raise ValueError(
                f"isolated documents need layers that keep them apart, such as attention: {name} "
                "carries what it has seen into the next one; leave one out"
            )


def documents(
    tokens: Array, boundary: int | None, filled: Array | int = 0, begun: Array | int = 0
) -> Array | None:
    """Return where the document of each token (B, T) begins, None for no boundaries.

    Args:
        tokens: (B, T).
        boundary: the token that begins a document.
        filled: how many tokens stand before them, (B, 1).
        begun: where the document before them began, (B, 1).

    >>> documents(np.array([[5, 0, 5, 5, 0]]), 0)
    array([[0, 1, 1, 1, 4]])
    """
    if boundary is None:
        return None
    at = filled + np.arange(tokens.shape[1])
    return np.maximum.accumulate(np.where(tokens == boundary, at, begun), axis=1)


def positions_in(begins: Array | None, length: int) -> Array:
    """Return the position of each token in its document, (B, T), or (T,) where all are of one."""
    positions = np.arange(length)
    return positions if begins is None else positions - begins


def _expect_inputs(params: Tree, tokens: Any, model: Layers) -> None:
    """Check what the layers do not: how many tokens there are, and which parameters."""
    names = ["embedding", "blocks", "norm"]
    names += ["unembedding"] * (not model.tied) + ["positions"] * (model.positions is not None)
    names += ["prompt"] * (model.prompt is not None)
    expect_params(params, names)
    if not isinstance(params["blocks"], tuple):
        raise TypeError(
            f"params['blocks'] must be a tuple: got {type(params['blocks']).__name__}; "
            "pass tuple(blocks)"
        )
    if len(params["blocks"]) != len(model.blocks):
        raise ValueError(
            f"params must hold the {len(model.blocks)} blocks of the model: "
            f"got {len(params['blocks'])}; pass the model that they were made for"
        )
    if model.prompt is not None and model.boundary is not None:
        raise ValueError(
            "a prompt stands before the first document alone: got one and isolated documents; "
            "choose another adapter, such as a prefix, or leave isolate_documents out"
        )
    expect_inputs(params["embedding"], "weight: V D")
    expect_shape("embedding.weight", params["embedding"]["weight"], "V D", V=model.vocab_size)
    expect_array("tokens", tokens, "integers")
    if tokens.ndim not in (1, 2):
        raise ValueError(f"tokens must have shape (T,) or (B, T): got {tokens.shape}; reshape them")
    if tokens.shape[-1] > model.max_seq_len:
        raise ValueError(
            f"tokens must be at most max_seq_len={model.max_seq_len} long: "
            f"got {tokens.shape[-1]}; pass a window of them, or raise max_seq_len"
        )
