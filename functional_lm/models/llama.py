"""Llama (Touvron et al. 2023): RMS norms, rotary positions, grouped key/value heads, SwiGLU.

No biases; the embedding's weight may serve as the unembedding's too.
"""

import dataclasses

from ..compose import bind
from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..layers import rms_norm, swiglu
from ..rotation import PAIRINGS
from . import llama_decoder, mlp, self_attention, transformer
from .transformer import Transformer
from .transformer_block import Block
