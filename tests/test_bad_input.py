"""What is wrong with an input, and how to mend it, is said by the message."""

import re

import numpy as np
import pytest

from functional_lm.compose import bind, serial
from functional_lm.generation import Decoder, generate
from functional_lm.layers import linear, silu
from functional_lm.models import build, find
from functional_lm.optimizers import adamw
from functional_lm.text import CharTokenizer
from functional_lm.training import Experiment, TrainConfig

TOKENIZER = CharTokenizer.train("hello")
MODEL = build("llama", vocab_size=13, d_model=8, n_heads=2, n_layers=1)
PARAMS = MODEL.init((0,))
X = np.ones((2, 3), np.float32)
IDS = np.zeros((1, 2), int)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: TOKENIZER.encode(b"he"), TypeError, "be a str: got bytes; pass text.decode()"),
        (lambda: TOKENIZER.encode(["h"]), TypeError, "be a str: got list; pass ''.join(text)"),
        (lambda: CharTokenizer.train(b"he"), TypeError, "be a str: got bytes"),
        (lambda: Experiment.build(b"he", TrainConfig()), TypeError, "be a str: got bytes"),
        (lambda: Experiment.build(["he"], TrainConfig()), TypeError, "be a str: got list"),
        (lambda: find("lama"), ValueError, "got 'lama'; did you mean llama?"),
        (lambda: find("mine"), ValueError, "got 'mine'; there is no such file"),
        (
            lambda: build("llama", vocab_size=3, dmodel=4),
            TypeError,
            "got dmodel; did you mean d_model?",
        ),
        (lambda: bind(linear, d_inn=3), TypeError, "got d_inn; did you mean d_in?"),
        (
            lambda: serial(silu).init((0,), q=3),
            TypeError,
            "Serial takes the keywords {dtype}: got q; remove it",
        ),
        (
            lambda: serial(a=silu).vjp({"b": X}, X),
            ValueError,
            "residuals must have the keys {a}: got {b}; pass what forward returns",
        ),
        (
            lambda: serial(silu, silu).vjp((X,), X),
            ValueError,
            "serial must have residuals for its 2 layers, as a tuple: got 1; pass what forward",
        ),
        (lambda: MODEL.init(0), TypeError, "key must be a tuple of ints: got 0; pass (0,)"),
        (
            lambda: MODEL.logits(PARAMS, [[1, 2]]),
            TypeError,
            "tokens must be a NumPy array of integers: got list; pass np.asarray(tokens)",
        ),
        (
            lambda: MODEL.forward(PARAMS, IDS, targets=[[1, 2]]),
            TypeError,
            "targets must be a NumPy array of integers: got list; pass np.asarray(targets)",
        ),
        (
            lambda: MODEL.vjp(IDS, 1.0),
            TypeError,
            "residuals must be those of language_model: got ndarray; pass the second value that",
        ),
        (
            lambda: MODEL.logits(PARAMS["blocks"], IDS),
            TypeError,
            "params must be a dict: got tuple",
        ),
        (
            lambda: silu.forward({}, X.view(np.matrix)),
            TypeError,
            "x must be a plain NumPy array of float32 or float64: got matrix; pass np.asarray(x",
        ),
        (
            lambda: next(generate(MODEL, [1], max_new_tokens=1)),
            TypeError,
            "got LanguageModel; pass Decoder(model, params)",
        ),
        (lambda: Decoder(MODEL, {}), ValueError, "params must have the keys"),
        (lambda: adamw("1e-3"), TypeError, "learning_rate must be a number: got '1e-3'"),
    ],
)
def test_the_message_says_what_was_required_what_was_received_and_the_fix(call, error, says):
    with pytest.raises(error, match=re.escape(says)):
        call()
