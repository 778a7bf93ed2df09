import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.models import build
from functional_lm.optimizers import adafactor, adam, adamw, constant_schedule, lion, muon, sgd
from functional_lm.training import TrainConfig


def test_the_schedule_warms_up_and_decays_to_a_tenth():
    schedule = TrainConfig(lr=1.0).schedule(1000)
    np.testing.assert_allclose([schedule(0), schedule(99), schedule(1000)], [0.01, 1.0, 0.1])


def test_short_runs_warm_up_for_a_tenth():
    schedule = TrainConfig(lr=1.0).schedule(20)
    np.testing.assert_allclose([schedule(0), schedule(1)], [0.5, 1.0])
    assert TrainConfig(lr=1.0).schedule(1)(0) == 1.0


def test_a_constant_rate_is_possible():
    schedule = TrainConfig(lr=0.5, min_lr=0.5, warmup_steps=0).schedule(2000)
    assert {schedule(step) for step in (0, 1000, 2000)} == {0.5}


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"lr_schedule": "linear"}, [0.01, 1, 1, 0.5, 0.2, 0]),
        ({"lr_schedule": "wsd"}, [0.01, 1, 1, 1, 0.9, 0]),
        ({"lr_schedule": "wsd", "decay_share": 0.5, "min_lr": 0.5}, [0.01, 1, 1, 0.95, 0.68, 0.5]),
        ({"lr_schedule": "inverse_sqrt"}, [0.01, 1, 0.995, 0.426, 0.349, 0.316]),
        ({"lr_schedule": "constant"}, [0.01, 1, 1, 1, 1, 1]),
    ],
)
def test_schedules_by_name(settings, rates):
    schedule = TrainConfig(lr=1.0, **settings).schedule(1000)
    found = [schedule(step) for step in (0, 99, 100, 550, 820, 1000)]
    np.testing.assert_allclose(found, rates, rtol=1e-3)


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 3e-3), ("muon", 0.02), ("lion", 3e-4)])
def test_each_optimizer_has_its_usual_rate(optimizer, lr):
    assert TrainConfig(optimizer=optimizer).peak_lr == lr
    assert TrainConfig(optimizer=optimizer).schedule(100)(10) == pytest.approx(lr)
    assert TrainConfig(optimizer=optimizer, lr=0.5).peak_lr == 0.5


def test_the_optimizer_clips_and_decays():
    params = {"w": np.ones((2, 2))}
    settings = TrainConfig(lr=0.1, min_lr=0.1, warmup_steps=0, max_grad_norm=1e-3)
    optimizer = settings.make_optimizer(settings.schedule(10))
    grads = {"w": np.full((2, 2), 1e6)}
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 - 0.1 * 0.1, rtol=1e-4)
    assert np.linalg.norm(state[1].mu["w"]) == pytest.approx(0.1 * 1e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer": "adam", "b1": 0.8, "eps": 1e-3}, adam(0.1, 0.8, 0.99, 1e-3)),
        ({"optimizer": "adamw", "weight_decay": 0.5}, adamw(0.1, b2=0.99, weight_decay=0.5)),
        ({"optimizer": "sgd", "momentum": 0.7, "nesterov": True}, sgd(0.1, 0.7, True)),
        ({"optimizer": "lion", "weight_decay": 0.5}, lion(0.1, weight_decay=0.5)),
        ({"optimizer": "adafactor", "momentum": 0.5}, adafactor(0.1, momentum=0.5)),
    ],
    ids=["adam", "adamw", "sgd", "lion", "adafactor"],
)
def test_an_optimizer_gets_its_settings(settings, expected):
    params, grads = {"w": np.ones((2, 2))}, {"w": np.full((2, 2), 1e-3)}
    made = TrainConfig(**settings).make_optimizer(constant_schedule(0.1))
    updates, _ = made.update(grads, made.init(params), params)
    np.testing.assert_array_equal(
        updates["w"], expected.update(grads, expected.init(params), params)[0]["w"]
    )


def test_muon_trains_each_map_of_a_projection_and_adam_the_rest():
    sizes = {"vocab_size": 7, "d_model": 8, "n_heads": 2, "n_layers": 1, "max_seq_len": 4}
    model = build("hybrid", **sizes, experts=2, d_ff=6)
    params, rng = model.init((0,)), np.random.default_rng(0)
    grads = pytree.map(lambda p: rng.standard_normal(p.shape).astype(p.dtype), params)
    settings = TrainConfig(optimizer="muon", lr=0.1, adam_lr=0.03, momentum=0.8, normuon=True)
    made = settings.make_optimizer(constant_schedule(0.1), model)
    updates, _ = made.update(grads, made.init(params), params)
    ours = dict(pytree.leaves_with_path(updates))
    for path, p, g in pytree.zip_with_path(params, grads):
        maps = {"qkv": 3, "up": 2}.get(path.removesuffix(".weight").split(".")[-1], 1)
        if path.startswith("blocks") and p.ndim >= 2:
            alone = muon(0.1, 0.8, weight_decay=0.1, row_beta=0.95)
            width = p.shape[-1] // maps
            pieces = [slice(i * width, (i + 1) * width) for i in range(maps)]
        else:
            alone, pieces = adam(0.03, b2=0.99), [slice(None)]
        for stack in np.ndindex(p.shape[:-2]):
            for piece in pieces:
                one = (*stack, ..., piece)
                tree = {"w": p[one]}
                expected, _ = alone.update({"w": g[one]}, alone.init(tree), tree)
                np.testing.assert_allclose(
                    ours[path][one], expected["w"], rtol=1e-4, atol=1e-6, err_msg=path
                )


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        (
            {"epochs": 1, "windows": "shuffled"},
            ValueError,
            "windows is a setting of steps: got epochs",
        ),
        ({"windows": "all"}, ValueError, "windows must be 'random' or 'shuffled'"),
        ({"steps": 3, "epochs": 1}, ValueError, "got steps=3 and epochs=1; leave one out"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer"),
        ({"lr": -1.0}, ValueError, "lr must be finite"),
        ({"lr": float("nan")}, ValueError, "lr must be finite"),
        ({"min_lr": -1.0}, ValueError, "min_lr must be finite"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        (
            {"optimizer": "adagrad"},
            ValueError,
            "optimizer must be 'adamw' or 'adam' or 'sgd' or 'muon'",
        ),
        ({"b1": 1.0}, ValueError, "b1 must lie in"),
        (
            {"momentum": 0.9},
            ValueError,
            "setting of sgd and muon and adafactor: got optimizer='adamw'; .* sgd",
        ),
        ({"optimizer": "sgd", "b1": 0.8}, ValueError, "b1 is a setting of adamw and adam"),
        ({"decay_share": 0.5}, ValueError, "decay_share is a setting of wsd: got lr_schedule="),
        ({"min_lr": 0, "lr_schedule": "constant"}, ValueError, "of cosine and linear and wsd"),
        ({"normuon": True}, ValueError, "normuon is a setting of muon"),
        ({"optimizer": "sgd", "nesterov": True}, ValueError, "set momentum=0.9"),
    ],
)
def test_bad_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        TrainConfig(**settings)
