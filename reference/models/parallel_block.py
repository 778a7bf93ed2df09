"""A transformer block with parallel branches in JAX."""

from .transformer_block import keyed


def forward(params, x, *, block, positions, begins=None, key=None):
    """Return x + mixer(h) + mlp(h) with h = norm(x), each branch with dropout."""
    keys = (None, None) if key is None else ((*key, 0), (*key, 1))
    losses, stream = [], None
    if hasattr(x, "auxiliary"):
        stream, x, losses = type(x), x.x, [x.auxiliary]
    h = block.norm.forward(params["norm"], x)
    own = keyed(block.mixer, key, 2) | ({} if begins is None else {"begins": begins})
    a = block.mixer.forward(params["mixer"], h, positions=positions, **own)
    m = block.mlp.forward(params["mlp"], h, **keyed(block.mlp, key, 3))
    if hasattr(m, "auxiliary"):
        stream, m, losses = type(m), m.x, [*losses, m.auxiliary]
    y = x + block.dropout.forward({}, a, key=keys[0]) + block.dropout.forward({}, m, key=keys[1])
    return stream(y, sum(losses)) if stream else y
