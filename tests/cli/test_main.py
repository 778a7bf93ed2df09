"""The program: its commands, its help, what it does where its output cannot go."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import functional_lm
from functional_lm.cli import help
from functional_lm.cli.fields import flags_of
from functional_lm.cli.main import COMMANDS, command_named, main
from functional_lm.cli.output import escaped
from functional_lm.models import find
from functional_lm.training.settings import OPTIMIZERS

PROGRAM = Path(sys.executable).with_name("functional-lm")


def shell(line, **variables):
    """Run a line of bash in which f is the program; return its status, output and errors."""
    environment = {**os.environ, **variables}
    line = f'f() {{ "{PROGRAM}" "$@"; }}; set -o pipefail; {line}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_installed_command():
    assert shell("f --version") == (0, f"functional-lm {functional_lm.__version__}\n", "")


def test_the_module_is_the_command():
    status, _, said = shell(f"{sys.executable} -m functional_lm nothing")
    assert (status, said) == (2, "functional-lm: there is no command 'nothing'; see --help\n")


@pytest.mark.parametrize(
    "line",
    [
        "f -h | head -1",
        "f train -h | head -1",
        "f generate {run} --max-new-tokens 200 | head -c 1",
        "f runs | head -c 1",
    ],
)
def test_a_reader_that_has_had_enough_is_no_error(run_folder, monkeypatch, line):
    monkeypatch.chdir(run_folder.parent)
    status, said, errors = shell(line.format(run=run_folder))
    assert (status, errors) == (0, "")
    assert len(said.splitlines()) == 1


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main(["help"]) == 0
    assert capsys.readouterr().out == said
    assert main([]) == 2
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_every_command_explains_its_flags(name, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["help", name]) == 0
    said = capsys.readouterr().out
    assert f"Usage: functional-lm {name}" in said
    assert max(map(len, said.splitlines())) <= min(columns, 100)
    for noise in ("None", "{", "default: )", "Whether"):
        assert noise not in said
    assert main([name, "-h"]) == 0
    assert capsys.readouterr().out == said


def test_every_flag_is_documented_and_the_names_from_elsewhere_lead_to_one():
    flags = [flag for name in COMMANDS for flag in flags_of(command_named(name), find("llama"))]
    assert [flag.name for flag in flags if not flag.about or flag.about.startswith("of ")] == []
    known = {*COMMANDS, *(flag.spelling for flag in flags if not flag.positional)}
    for name, ours in help.OURS.items():
        said = help.meant(f"--{name}", known).replace("-", "_")
        assert said in (ours, f"did you mean {ours}?", f"did you mean __{ours}?")


COMPLETIONS = {
    "functional-lm tra": "train",
    "functional-lm train --ste": "--steps",
    "functional-lm train --no-t": "--no-tie-embeddings",
    "functional-lm train --optimizer ": " ".join(OPTIMIZERS),
    "functional-lm train --preset ti": "tiny",
    "functional-lm completion ": "bash zsh fish",
    "functional-lm help diag": "diagnose",
    "functional-lm train ": "",  # the shell completes files
}


PROBES = {
    "bash": """
probe() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  _functional_lm
  echo ${COMPREPLY[*]}
}
""",
    "zsh": """
_default() { }
compadd() {  # zsh's own, which needs an editor
  for word in "${@[$@[(i)-]+1,-1]}"; do [[ $word == $PREFIX* ]] && found+=($word); done
}
probe() {
  words=("$@") CURRENT=$# PREFIX=$words[-1] SUFFIX= QIPREFIX= IPREFIX= found=()
  eval $_comps[functional-lm]
  echo $found
}
""",
    "fish": """
function probe
  echo (complete -C (string join ' ' -- $argv) | string split -f1 \\t)
end
""",
}
"""Functions that print what a shell offers for the last of some words."""


@pytest.mark.parametrize("shell", PROBES)
def test_a_shell_completes(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out + PROBES[shell]
    assert all(name in script for name in (*COMMANDS, "n-heads", "weight-decay", "shakespeare"))
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script += "".join(
        f"probe {line}{repr('') if line[-1] == ' ' else ''}\n" for line in COMPLETIONS
    )
    (tmp_path / "script").write_text(script)
    empty = tmp_path / "empty"  # there are no files to complete
    empty.mkdir()
    done = subprocess.run(
        [shell, tmp_path / "script"],
        cwd=empty,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    offered = [sorted(line.split()) for line in done.stdout.splitlines()]
    assert offered == [sorted(words.split()) for words in COMPLETIONS.values()]
    assert done.stderr == ""


def test_a_terminal_obeys_no_name(capsys):
    assert escaped("a\tb\n") == "a\tb\n"
    assert main(["generate", "\x1b[31m\x07\u202eevil"]) == 2
    assert "\\x1b[31m\\x07\\u202eevil" in capsys.readouterr().err


def test_all_that_is_printed_is_escaped():
    for path in Path(help.__file__).parent.glob("*.py"):
        source = path.read_text()
        if re.search(r"(?<![.\w])print\(", source) and path.stem != "output":
            assert re.search("^from .output import .*print$", source, re.MULTILINE), path


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}]
)
def test_any_terminal_shows_any_name(variables):
    status, _, said = shell("f train $'\\xff\\xc3\\xa9'", **variables)
    assert status == 2
    assert said.startswith("functional-lm train: \\udcff")
    assert said.endswith(": No such file or directory\n")
