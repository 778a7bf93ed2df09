"""Short causal convolution in JAX, as a depthwise convolution of the padded text."""

import jax
import jax.numpy as jnp


def forward(params, x):
    """Return yₜ = Σⱼ wⱼ·xₜ₋ⱼ + b, and the last W − 1 inputs."""
    weight = params["weight"]
    padded = jnp.concatenate([x.state, x.x], axis=1)
    y = jax.lax.conv_general_dilated(
        padded,
        weight[::-1, None],  # a kernel is (W, 1, D), and its last tap meets xₜ
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=weight.shape[1],
    )
    return x._replace(x=y + params.get("bias", 0), state=padded[:, x.x.shape[1] :])
