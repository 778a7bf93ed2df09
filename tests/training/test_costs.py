from functional_lm.models import build
from functional_lm.models.llama import PRESETS
from functional_lm.training import costs


def test_the_costs_of_tiny():
    cost = costs(build("llama", vocab_size=65, **PRESETS["tiny"]), 64)
    matrices = 763_136 - 9 * 128  # all but the norms; the tied table is the unembedding
    forward = 2 * matrices + 4 * 64 * 128 * 4
    assert cost.parameters == 763_136
    assert cost.inference_flops == forward
    assert cost.training_flops == 3 * forward
    assert cost.inference_bytes == 4 * 2 * 4 * 128
    # Per token and block: two norms, qkv, rotation, attention, two MLP slopes, hidden and inputs.
    assert 4 * 4 * 2000 < cost.training_bytes < 4 * 4 * 4000


def test_untied_embeddings_cost_the_same_arithmetic():
    tied = costs(build("llama", vocab_size=65, **PRESETS["tiny"]), 64)
    untied = costs(build("llama", vocab_size=65, **PRESETS["tiny"], tie_embeddings=False), 64)
    assert untied.parameters == tied.parameters + 65 * 128
    assert untied.inference_flops == tied.inference_flops
