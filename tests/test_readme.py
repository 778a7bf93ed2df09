"""The README is true: its commands are those of CI, its Python runs."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from functional_lm.cli.check import Check
from functional_lm.cli.evaluate import Evaluate
from functional_lm.cli.generate import Generate
from functional_lm.cli.golden import Golden
from functional_lm.cli.plot import Plot
from functional_lm.cli.report import Report
from functional_lm.cli.sweep import Sweep
from functional_lm.cli.train import RunSelection, Train
from functional_lm.models import hybrid
from functional_lm.models.adapting import AdapterConfig
from functional_lm.training import TrainConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("functional_lm", "tests")
    for path in (ROOT / folder).rglob("README.md")
)


def blocks(language, page="README.md"):
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


@pytest.fixture
def run_python(tmp_path, monkeypatch):
    """Run the Python of a page in an empty folder; ``# NAME.py`` begins a file of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(page):
        namespace = {}
        for block in blocks("python", page):
            file = re.match(r"# (\w+)\.py\n", block)
            if file:
                (tmp_path / f"{file[1]}.py").write_text(block, encoding="utf-8")
                monkeypatch.delitem(sys.modules, file[1], raising=False)
            else:
                exec(compile(block, f"<{page}>", "exec"), namespace)
        return namespace

    return run


def test_its_python_runs(run_python, capsys):
    namespace = run_python("README.md")
    assert not namespace["report"]
    printed = capsys.readouterr().out
    shown = next(block for block in blocks("") if block.startswith("my_norm: FAILED"))
    assert without_figures(shown) in without_figures(printed)
    losses = [float(row[1]) for row in map(str.split, printed.splitlines()) if row[:1] == ["20"]]
    assert len(losses) == 2
    assert max(*losses, namespace["step"].loss) < 0.9 * np.log(65)  # as all letters alike
    assert namespace["experiment"].steps == 60


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_other_pages_runs(page, run_python):
    run_python(page)


def without_figures(text):
    """Return the words of a report, with every error and ratio as #.

    Without the line of the reference too, which is known only where there is a file.
    """
    text = re.sub(r" in `[^`]*`", "", text)
    return " ".join(re.sub(r"\d(\.\d)?e[+-]\d\d|(?<= )\d+(\.\d+)?(?= )", "#", text + " ").split())


def test_a_golden_file_is_read_as_it_says(tmp_path):
    from safetensors.numpy import load

    from functional_lm.testing import golden

    recipe = next(
        block
        for block in blocks("python", "functional_lm/testing/README.md")
        if "def errors(" in block
    )
    namespace = {"np": np}
    exec(compile(recipe, "README.md", "exec"), namespace)
    made = golden("attention", {"T": 7, "K": 3}, {"causal": True})
    path = tmp_path / "attention.safetensors"
    path.write_bytes(made.to_bytes())
    ours = {k[8:]: v for k, v in load(made.to_bytes()).items() if k.startswith("float32.")}
    errors = namespace["errors"](path, ours)
    assert set(errors) == {"y", "x.q", "x.k", "x.v"}
    assert max(errors.values()) < 1
    assert namespace["errors"](path, {"y": ours["y"] * 1.001})["y"] > 1


def test_ci_runs_its_test_command():
    command = next(block.strip() for block in blocks("bash") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_its_commands_take_one_line_each():
    for block in blocks("bash"):
        assert len(block.strip().splitlines()) == 1


def test_its_flags_exist():
    known = {"help", "version", "text_file"}
    for dataclass in (
        TrainConfig,
        Train,
        AdapterConfig,
        hybrid.Config,
        RunSelection,
        Generate,
        Evaluate,
        Sweep,
        Check,
        Golden,
        Plot,
        Report,
    ):
        known |= set(dataclass.__dataclass_fields__)
    table = README[README.index("| command |") : README.index("Each explains")]
    flags = re.findall(r"--([a-z][a-z-]*)", table)
    assert len(flags) > 10
    for flag in flags:
        assert flag.replace("-", "_") in known, flag


@pytest.mark.parametrize("folder", re.findall(r"^((?:functional_lm|reference)/\S*)", README, re.M))
def test_the_places_it_names_exist(folder):
    assert (ROOT / folder).exists()


def test_the_python_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or newer" in README
