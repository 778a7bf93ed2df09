import math

import numpy as np
import pytest

from functional_lm.losses import cross_entropy
from functional_lm.training import Experiment, TrainConfig, evaluate
from functional_lm.training.evaluation import bits_per_byte

X = np.random.default_rng(0).standard_normal((7, 5))
Y = np.array([0, 1, 2, 3, 4, 0, 1])


def test_batches_weigh_by_their_size():
    whole, _ = cross_entropy.forward({}, X, targets=Y)
    parts = [(X[part], {"targets": Y[part]}) for part in (slice(0, 2), slice(2, 7))]
    assert evaluate(cross_entropy, {}, parts) == pytest.approx(whole, rel=1e-14)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(cross_entropy, {}, [])


def test_the_bytes_are_those_of_the_scored_targets():
    # Tokens of 1, 2 and 3 bytes; the windows of 2 targets are (1, 2), (0, 1), (2, 2).
    tokens, token_bytes = np.array([0, 1, 2, 0, 1, 2, 2, 0]), np.array([1, 2, 3])
    nats = 6 * math.log(2)  # of six targets, one bit each
    given = {"token_bytes": token_bytes}
    assert bits_per_byte(nats / 6, tokens, 2, **given) == pytest.approx(6 / 14)
    assert bits_per_byte(nats / 6, tokens, 2, **given, limit=2) == pytest.approx(2 / 5)
    sizes = {"token_bytes": None, "sizes": token_bytes[tokens]}
    assert bits_per_byte(nats / 6, tokens, 2, **sizes, limit=4) == pytest.approx(4 / 8)
    assert bits_per_byte(1.0, tokens, 2, token_bytes=None) is None
    assert bits_per_byte(1.0, tokens, 2, token_bytes=np.zeros(3, int)) is None


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe:280", "wordpiece:60"])
def test_bits_per_byte_are_the_nats_of_windows_over_their_bytes(tokenizer):
    text = "Größe und Maß, das Äußere. " * 60
    experiment = Experiment.build(
        text, TrainConfig(steps=1, seq_len=5), tokenizer=tokenizer, sizes={"d_model": 8}
    )
    params = experiment.model.init((0,))
    loss = experiment.validation_loss(params, limit=25)
    tokens, sizes = experiment.tokenizer.sized(text[int(len(text) * 0.9) :])
    assert tokens.tolist() == experiment.held_out.tolist()
    count = (len(tokens) - 1) // 5
    starts = [5 * (i * count // 5) for i in range(5)]
    nats = sum(
        5
        * float(
            experiment.model.forward(
                params,
                tokens[None, at : at + 5].astype(np.int32),
                targets=tokens[None, at + 1 : at + 6].astype(np.int32),
            )[0]
        )
        for at in starts
    )
    n_bytes = sum(int(sizes[at + 1 : at + 6].sum()) for at in starts)
    assert loss * 25 == pytest.approx(nats, rel=1e-5)
    found = experiment.bits_per_byte(loss, limit=25)
    assert found == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
