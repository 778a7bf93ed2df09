"""The campaign on public repositories, short: a repository of one file, made here."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.campaign

RUN = Path(__file__).with_name("run.py")
JOELNET = """
import numpy as np

class Linear:
    def __init__(self, n, m):
        self.params, self.grads = {"w": np.zeros((n, m)), "b": np.zeros(m)}, {}

    def forward(self, x):
        self.x = x
        return x @ self.params["w"] + self.params["b"]

    def backward(self, g):
        self.grads = {"w": self.x.T @ g, "b": g[0]}
        return g @ self.params["w"].T

class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, g):
        return g * (1 - self.y**2)
"""


def test_a_wrong_and_a_right_layer(tmp_path):
    folder = tmp_path / "joelnet" / "joelnet"
    folder.mkdir(parents=True)
    (folder / "layers.py").write_text(JOELNET)
    command = [sys.executable, str(RUN), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    linear, tanh = done.stdout.splitlines()[2:]
    assert "`Linear` | slice kept: params.b; shared memory" in linear
    assert "`Tanh` | right |" in tanh
    assert "missing: git clone https://github.com/karpathy/llm.c" in done.stderr
