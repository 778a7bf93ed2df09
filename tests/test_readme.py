"""The README is true: its commands are those of CI, its Python runs."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from functional_lm.cli.train import Train
from functional_lm.training import TrainConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace = {}
    for block in blocks("python"):
        file = re.match(r"# (\w+)\.py\n", block)
        if file:
            (tmp_path / f"{file[1]}.py").write_text(block, encoding="utf-8")
            monkeypatch.delitem(sys.modules, file[1], raising=False)
        else:
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["report"].ok
    printed = capsys.readouterr().out
    shown = next(block for block in blocks("") if block.startswith("squared_relu: ok"))
    figures = re.compile(r"\d\.\de[+-]\d\d")
    table = printed[: printed.index("20 ")]
    assert figures.sub("#", table).split() == figures.sub("#", shown).split()
    losses = [float(line.split()[1]) for line in printed.splitlines() if line[:1].isdigit()]
    assert len(losses) == 5
    assert losses[-1] < losses[0]


def test_ci_runs_its_test_command():
    command = next(block.strip() for block in blocks("bash") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_its_commands_take_one_line_each():
    for block in blocks("bash"):
        assert len(block.strip().splitlines()) == 1


def test_its_flags_exist():
    fields = {*TrainConfig.__dataclass_fields__, *Train.__dataclass_fields__}
    for flag in re.findall(r"functional-lm train [^`\n]*", README):
        for name in re.findall(r"--([a-z-]+)", flag):
            assert name == "help" or name.replace("-", "_") in fields


@pytest.mark.parametrize("folder", re.findall(r"^((?:functional_lm|reference)/\S*)", README, re.M))
def test_the_places_it_names_exist(folder):
    assert (ROOT / folder).exists()


def test_the_python_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or newer" in README
