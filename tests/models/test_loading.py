import pytest

from functional_lm.models import architectures, build, find


def test_a_name_or_the_file_itself(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from functional_lm.layers.embedding import forward, init, vjp\n")
    assert {"init", "forward", "vjp"} <= set(dir(find(str(path)).layer))
    path.write_text("from functional_lm.layers import embedding as table\n")
    assert find(f"{path}:table").layer.__name__ == "functional_lm.layers.embedding"


def test_it_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("from functional_lm.layers import embedding\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import embedding as model\n")
    assert find(f"{tmp_path / 'mine.py'}:model")


@pytest.mark.parametrize(
    ("content", "reference", "says"),
    [
        (None, "mine.py:model", "there is no such file"),
        ("", "mine.txt:model", "there is no such file"),
        ("model = 3", "mine.py:other", "must define other"),
        ("model = 3", "mine.py:model", "has no init, forward, vjp"),
        ("import nothing_like_it", "mine.py:model", "ModuleNotFoundError"),
        ("1 / 0", "mine.py:model", "cannot be run: ZeroDivisionError"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, monkeypatch, content, reference, says):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    with pytest.raises(ValueError, match=says):
        find(reference)


def test_architectures_are_found_by_name():
    assert "llama" in architectures()
    for name in architectures():
        found = find(name)
        assert "tiny" in found.PRESETS
        assert build(name, vocab_size=13, **found.PRESETS["tiny"]).n_parameters > 10**5


def test_an_architecture_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from functional_lm.models.llama import Config, architecture, PRESETS\n")
    model = build(str(path), vocab_size=13, d_model=8, n_heads=2)
    assert model.model.vocab_size == 13
