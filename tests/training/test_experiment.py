import dataclasses

import chex
import numpy as np
import pytest

from functional_lm.generation import temperature
from functional_lm.layers import embedding
from functional_lm.text import CharTokenizer, EncodedCorpus
from functional_lm.training import Experiment, TrainConfig

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SIZES = {"d_model": 16, "n_heads": 2, "n_layers": 1}
SETTINGS = TrainConfig(steps=12, batch_size=4, seq_len=16)


def build(settings=SETTINGS, **changes):
    return Experiment.build(TEXT, settings, **{"sizes": SIZES, **changes})


@pytest.mark.parametrize("shards", [1, 2])
def test_accumulation_makes_the_updates_of_the_whole_batch(shards):
    settings = dataclasses.replace(SETTINGS, steps=3, shards=shards)
    parts = dataclasses.replace(settings, gradient_accumulation_steps=4)
    for one, other in zip(build(settings).run(), build(parts).run(), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-6)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
        chex.assert_trees_all_close(other.state.params, one.state.params, rtol=1e-3, atol=1e-6)


def test_ten_lines_in_a_notebook():
    experiment = build()
    for step in experiment.run():
        params = step.state.params
    assert step.state.step == 12
    assert experiment.validation_loss(params) < experiment.validation_loss(
        experiment.init_state().params
    )
    text = experiment.sample(params, "the ", key=(0,), max_new_tokens=9, transform=temperature(0.5))
    assert text.startswith("the ")
    assert len(text) == 13


def test_the_text_is_split_and_the_context_is_the_window():
    experiment = build()
    assert (len(experiment.tokens), len(experiment.held_out)) == (1620, 180)
    assert experiment.config.max_seq_len == 16
    assert experiment.config.vocab_size == 29
    longer = build(sizes={**SIZES, "max_seq_len": 40})
    assert longer.config.max_seq_len == 40


def test_steps_are_2000_unless_given():
    assert build(TrainConfig(seq_len=16)).steps == 2000
    assert build(TrainConfig(seq_len=16, batch_size=4, epochs=3)).steps == 3 * 26


def test_batches_follow_the_seed_and_the_step():
    x, side = build().batch_at(3)
    again, _ = build().batch_at(3)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(side["targets"][:, :-1], x[:, 1:])
    assert side["key"] == (0, 2, 3)
    for changed in ({"seed": 1}, {"windows": "shuffled"}, {"epochs": 1}):
        other, _ = build(TrainConfig(seq_len=16, batch_size=4, **changed)).batch_at(3)
        assert (other != x).any()


def test_the_rehearsal_returns_the_first_parameters():
    experiment = build()
    chex.assert_trees_all_equal(experiment.rehearse(), experiment.init_state().params)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vjp": lambda residuals, g: {}["nothing"]}, r"KeyError: 'nothing' \(test_experiment.py"),
        ({"init": lambda key: 1 / 0}, "ZeroDivisionError"),
        ({"vjp": lambda residuals, g: ({}, None)}, "one structure"),
        ({"vjp": lambda residuals, g: ({"table": {"weight": np.zeros(3)}}, None)}, "must have its"),
        ({"forward": lambda params, tokens: (np.zeros((1, 2)), None)}, "must map tokens to logits"),
    ],
)
def test_the_rehearsal_names_the_faults_of_a_model(change, says):
    class Model:
        init = staticmethod(
            lambda key, *, vocab_size: {
                "table": embedding.init(key, vocab_size=vocab_size, d_model=vocab_size)
            }
        )
        forward = staticmethod(lambda params, tokens: embedding.forward(params["table"], tokens))
        vjp = staticmethod(lambda residuals, g: ({"table": embedding.vjp(residuals, g)[0]}, None))

    build(model=Model).rehearse()
    broken = type("Broken", (Model,), {name: staticmethod(f) for name, f in change.items()})
    with pytest.raises(ValueError, match=rf"fails on its first window: .*{says}"):
        build(model=broken).rehearse()


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({"label_smoothing": 0.2}, {}), ({"z_loss": 0.1}, {}), ({}, {"experts": 3})],
    ids=str,
)
def test_what_training_adds_to_the_loss_is_not_in_the_validation(settings, sizes):
    sizes = SIZES | sizes
    plain = build(model="hybrid", sizes=sizes)
    if sizes.keys() > SIZES.keys():
        plain = build(model="hybrid", sizes={**sizes, "balance_loss": 0.0, "router_z_loss": 0.0})
    more = build(dataclasses.replace(SETTINGS, **settings), model="hybrid", sizes=sizes)
    params = plain.init_state().params
    assert more.validation_loss(params) == plain.validation_loss(params)
    one, other = (next(e.run(e.init_state(params))) for e in (plain, more))
    assert other.loss > one.loss + 0.001


def test_an_encoded_text_comes_with_its_tokenizer():
    tokens = np.arange(40, dtype=np.uint8) % 3
    text = EncodedCorpus(tokens, tokens, "0" * 64)
    settings = TrainConfig(steps=1, seq_len=4, batch_size=2)
    with pytest.raises(ValueError, match="an encoded text has a tokenizer: got only its tokens"):
        Experiment.build(text, settings)
    built = Experiment.build(text, settings, tokenizer=CharTokenizer("abc"), sizes=SIZES)
    assert (built.text_sha256, len(built.held_out), built.held_out_sizes) == ("0" * 64, 40, None)
