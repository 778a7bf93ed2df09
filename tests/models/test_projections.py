from functional_lm.models import build
from functional_lm.models.adapting import AdapterConfig, with_adapters
from functional_lm.models.projections import projections

SIZES = {"vocab_size": 7, "d_model": 12, "n_heads": 6, "n_layers": 2, "d_ff": 10}


def test_the_maps_of_each_projection():
    model = build("hybrid", **SIZES, n_kv_heads=2, value_size=3)
    found = {path.removeprefix("blocks.1."): p for path, p in projections(model).items()}
    qkv, up, down = found["mixer.qkv"], found["mlp.up"], found["mlp.down"]
    assert (qkv.d_in, qkv.d_out) == (12, (12, 4, 6))
    assert qkv.parts == {"q": (0, 12), "k": (12, 16), "v": (16, 22)}
    assert up.parts == {"gate": (0, 10), "value": (10, 20)}
    assert (down.d_in, down.d_out, down.parts) == (10, (12,), {})


def test_maps_without_names_are_numbered():
    found = projections(build("hybrid", **SIZES, mixer="mamba2"))
    assert list(found["blocks.0.mixer.zxbcdt"].parts) == list("01234")


def test_of_an_adapted_projection():
    model = build("gpt2", **SIZES)
    tuned = with_adapters(model, AdapterConfig(lora_rank=2))
    for path, projection in projections(model).items():
        assert projections(tuned)[path][1:] == projection[1:]
