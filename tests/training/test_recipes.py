import pytest

from functional_lm.training import RECIPES, Experiment, recipe

TEXT = "To be, or not to be, that is the question: " * 40


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("model", [None, "llama", "gpt2"])
def test_a_recipe_builds_an_experiment_with_what_a_model_has(name, model):
    experiment = Experiment.build(TEXT, **recipe(name, model=model, steps=7, seq_len=8))
    assert experiment.steps == 7
    in_force = vars(experiment.config) | vars(experiment.settings)
    expected = {k: v for k, v in RECIPES[name].items() if k in in_force} | {
        "steps": 7,
        "seq_len": 8,
    }
    assert {k: in_force[k] for k in expected} == expected


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="recipe must be 'best' or 'lowest' or 'speedrun'"):
        recipe("worst")
