import json
from pathlib import Path

import pytest

from functional_lm.cli.flags import read_settings
from functional_lm.cli.main import main
from functional_lm.files import FileFormatError

BAD = {
    "list.json": ("[1]", "must hold settings by name: got a list"),
    "no.json": ("{", "it is not JSON"),
    "twice.json": ('{"lr": 1, "lr": 2}', "the name 'lr' twice"),
    "nan.json": ('{"lr": NaN}', "NaN is no JSON number"),
    "deep.json": ('{"a":' * 100, "more than 64 arrays"),
    "no.toml": ('{"lr": 1}', "must be TOML: .* or let its name end in .json"),
    "deep.toml": ("a = " + "[" * 9999, "more than 64 tables"),
    "file.toml": ("text-file = 5", "must give text_file as a string: got a int"),
    "out.json": ('{"out": ["a"]}', "must give out as a string: got a list"),
    "model.json": ('{"model_file": "a.py"}', "must say the name of its model_file"),
    "name.json": ('{"model_file": {"name": 3}}', "must say the name of its model_file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_the_file(tmp_path, capsys, name):
    content, says = BAD[name]
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(FileFormatError, match=says) as caught:
        read_settings(path)
    assert caught.value.path == path
    assert main(["train", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"functional-lm train: {path} ")
    assert len(said.splitlines()) == 1


def test_tables_are_merged_and_what_is_no_setting_left_out(tmp_path):
    path = tmp_path / "config.json"
    content = {
        "model": {"n_heads": 2, "vocab_size": 9},
        "text": {"text_file": "a", "sha256": "0"},
        "model_file": {"name": "net", "from": "/b.py"},
        "n-layers": 3,
    }
    path.write_text(json.dumps(content))
    assert read_settings(path) == {
        "n_heads": 2,
        "text_file": Path("a"),
        "model": f"{tmp_path / 'model.py'}:net",
        "n_layers": 3,
    }
