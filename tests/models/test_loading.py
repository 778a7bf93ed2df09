import pytest

from functional_lm.models.loading import load_model


def test_a_name_or_the_file_itself(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from functional_lm.layers.embedding import forward, init, vjp\n")
    model = load_model(str(path))
    assert {"init", "forward", "vjp"} <= set(dir(model))
    path.write_text("from functional_lm.layers import embedding as table\n")
    assert load_model(f"{path}:table").__name__ == "functional_lm.layers.embedding"


def test_it_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("from functional_lm.layers import embedding\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import embedding as model\n")
    assert load_model(f"{tmp_path / 'mine.py'}:model")


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
        load_model(reference)
