"""The wheel works when installed outside the checkout, twins and checks included."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    parts = ("functional_lm", "reference", "pyproject.toml", "README.md", "LICENSE")
    for part in parts:
        copy = shutil.copytree if (root / part).is_dir() else shutil.copy
        copy(root / part, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_the_twins(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "functional_lm/py.typed",
        "functional_lm/layers/linear.py",
        "functional_lm/reports/page.html",
        "functional_lm/reference/layers/linear.py",
        "functional_lm/testing/registry.py",
    ):
        assert name in names
    assert not any(name.startswith(("tests/", "reference/")) for name in names)


def test_an_installed_wheel_checks_its_layers(wheel, tmp_path):
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    code = (
        "import functional_lm, functional_lm.reference\n"
        "from functional_lm.testing import check_layer\n"
        "for report in check_layer('silu'): report.raise_if_failed()\n"
        "print(functional_lm.__file__, functional_lm.reference.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(target)) for path in done.stdout.split())
