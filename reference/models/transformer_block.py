"""A pre-norm transformer block in JAX."""

import inspect


def forward(params, x, *, block, positions, begins=None, key=None):
    """Return x + mixer(norm(x)), then x + mlp(norm(x)), each branch with dropout."""
    keys = (None, None) if key is None else ((*key, 0), (*key, 1))
    losses, stream = [], None
    if hasattr(x, "auxiliary"):
        stream, x, losses = type(x), x.x, [x.auxiliary]
    h = block.norm1.forward(params["norm1"], x)
    own = keyed(block.mixer, key, 2) | ({} if begins is None else {"begins": begins})
    a = block.mixer.forward(params["mixer"], h, positions=positions, **own)
    x = x + block.dropout.forward({}, a, key=keys[0])
    h = block.norm2.forward(params["norm2"], x)
    m = block.mlp.forward(params["mlp"], h, **keyed(block.mlp, key, 3))
    if hasattr(m, "auxiliary"):
        stream, m, losses = type(m), m.x, [*losses, m.auxiliary]
    y = x + block.dropout.forward({}, m, key=keys[1])
    return stream(y, sum(losses)) if stream else y


def keyed(layer, key, i):
    """Return the i-th child of the key as a keyword of a layer whose forward names it."""
    known = getattr(layer, "forward_keywords", None)
    known = inspect.signature(layer.forward).parameters if known is None else known
    return {"key": (*key, i)} if key is not None and "key" in known else {}
