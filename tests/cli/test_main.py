import subprocess
import sys
from pathlib import Path

import pytest

import functional_lm
from functional_lm.cli.main import COMMANDS, main


def test_the_installed_command():
    command = Path(sys.executable).with_name("functional-lm")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"functional-lm {functional_lm.__version__}\n"


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "functional_lm", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there is no command 'nothing'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_every_command_and_flag(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in (*COMMANDS, "n-heads", "weight-decay", "shakespeare"))


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_flags(name, capsys):
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"functional-lm {name}" in said
    assert "tyro" not in said


def test_a_reader_that_has_had_enough_is_no_error(run_folder):
    command = Path(sys.executable).with_name("functional-lm")
    done = subprocess.run(
        f"{command} generate {run_folder} --max-new-tokens 200 | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
