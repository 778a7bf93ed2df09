"""The structure of the project, checked with `ast`: who imports whom, what a layer file has."""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from functional_lm.testing import registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "functional_lm"
TWINS = ROOT / "reference"
FILES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"contract", "pytree", "prng"}
SIBLINGS = {"layers", "losses", "optimizers", "text"}  # none imports another
STACK = [  # imports run strictly downwards, to a later line or within one
    {"__init__", "__main__"},
    {"cli"},
    {"testing"},
    {"reports", "health", "runs", "interop"},
    {"training", "generation"},
    {"models"},
    SIBLINGS,
    {
        "files",
        "speed",
        "numerics",
        "gradient",
        "compose",
        "locate",
        "outline",
        "heads",
        "low_rank",
        "rotation",
        "chunks",
    },
    FOUNDATION,
]
OUTSIDE = {  # packages besides NumPy, at the top of a file or inside of a function
    "cli": {"rich", "safetensors", "uniplot"},
    "files": {"safetensors"},
    "reports": {"jinja2", "matplotlib", "tensorboardX"},
    "runs": {"filelock", "platformdirs", "safetensors"},
    "speed": {"mpi4py", "threadpoolctl"},
    "testing": {"jax", "pytest", "safetensors"},
    "text": {"filelock", "platformdirs", "tokenizers"},
    "interop": {"jax", "ml_dtypes", "safetensors", "torch"},
}


def level(part: str) -> int:
    return next(i for i, parts in enumerate(STACK) if part in parts)


def imported(path: Path) -> list[str]:
    """Return the absolute name of everything that a file imports, wherever it does."""
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_run_downwards(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(path):
        package, *names = module.split(".")
        if package != "functional_lm":
            known = sys.stdlib_module_names | {"numpy"} | OUTSIDE.get(part, set())
            assert package in known, f"{part} imports {package}"
        elif names[0] in (part, "__version__"):
            alone = part in ("layers", "losses") and path.stem != "__init__"
            assert not alone, f"{path.name} imports its sibling {module}"
        elif part == "testing":
            assert names[0] in FOUNDATION or {"cases", "registry.py"} & {*path.parts}, module
        else:
            at, other = level(part), level(names[0])
            beside = at == other and part not in SIBLINGS
            assert other > at or beside, f"{part} imports {module}"


def test_twins_never_import_functional_lm():
    for path in TWINS.rglob("*.py"):
        assert not [m for m in imported(path) if m.startswith("functional_lm")], path


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def defined(node: ast.stmt) -> str:
    """Return the name that a statement defines, as in ``init = init_nothing``, or ""."""
    match node:
        case ast.ClassDef(name) | ast.FunctionDef(name) | ast.Assign([ast.Name(name)]):
            return name
    return ""


LAYERS = [
    path
    for package in ("layers", "losses", "models")
    for path in sorted((PACKAGE / package).rglob("*.py"))
    if "forward" in functions(path) or (package != "models" and path.stem != "__init__")
]


@pytest.mark.parametrize("path", LAYERS, ids=label)
def test_every_layer_is_whole(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    assert "Shapes:" in docstring
    assert {"VJP", "JVP"} <= {*re.findall(r"\w+", docstring)} or "models" in path.parts
    order = list(map(defined, tree.body))
    assert order.index("Residuals") < order.index("init") < order.index("forward")
    at = order.index("forward")
    assert order[at + 1 : at + 3] == ["vjp", "jvp"]
    (exports,) = [n.value for n in tree.body if defined(n) == "__all__"]
    public = {name for name in functions(path) if not name.startswith("_")}
    assert public | {"Residuals", "init"} <= set(ast.literal_eval(exports))
    positional = {name: [a.arg for a in f.args.args] for name, f in functions(path).items()}
    assert positional.get("init", ["key"]) == ["key"]
    assert positional["vjp"] == ["residuals", "g"]
    assert positional["jvp"] == ["residuals", "t"]
    assert positional["forward"][0] == "params"
    assert len(positional["forward"]) == 2


@pytest.mark.parametrize("path", LAYERS, ids=label)
def test_every_layer_has_a_twin_a_test_and_a_check(path):
    place = path.relative_to(PACKAGE)
    twin = functions(TWINS / place)
    assert "forward" in twin
    assert "vjp" not in twin
    assert ast.get_docstring(ast.parse((TWINS / place).read_text(encoding="utf-8")))
    test = (ROOT / "tests" / place.parent / f"test_{path.name}").read_text(encoding="utf-8")
    assert f'certify("{path.stem}")' in test
    assert path.stem in registry.names()


def test_models_hold_no_formula():
    for path in (PACKAGE / "models").rglob("*.py"):
        if path.stem == "llama_decoder":  # the formulas again, folded for speed
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.MatMult)], path


def test_every_package_is_listed_for_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {
        ".".join([name, *init.parent.relative_to(top).parts])
        for top, name in ((PACKAGE, "functional_lm"), (TWINS, "functional_lm.reference"))
        for init in top.rglob("__init__.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == folders


def test_nothing_else_lies_at_the_top():
    allowed = {"pyproject.toml", "README.md", "LICENSE", "functional_lm", "reference", "tests"}
    generated = {"build", "dist", "runs", "functional_lm.egg-info"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - generated <= allowed


CONTRIBUTIONS = {
    "layer": ("layer_norm", "gelu"),
    "optimizer": ("sgd", "adamw", "muon", "lion", "adafactor"),
    "tokenizer": ("CharTokenizer",),
    "architecture": ("llama", "gpt2"),
}


@pytest.mark.parametrize("kind", CONTRIBUTIONS)
def test_the_readme_lists_the_files_that_a_new_part_touches(kind):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = re.search(rf"^- An? {kind}: (.*?)(?=^- |^## |\Z)", readme, re.M | re.S)
    kinds = {path.stem: path.parent.name for path in (PACKAGE / "layers").rglob("*.py")}
    for name in CONTRIBUTIONS[kind]:
        text = line[1].replace("KIND", kinds.get(name, "KIND"))
        listed = re.findall(r"`([\w/.]+\.py)`", text)
        for path in listed:
            file = ROOT / path.replace("NAME", name)
            assert file.is_file(), path
            if "NAME" not in path:
                assert re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), path
        own = {path.replace("NAME", name) for path in listed}
        files = (p for top in (PACKAGE, TWINS, ROOT / "tests") for p in top.rglob("*.py"))
        named = {label(p) for p in files if p.stem in (name, f"test_{name}")}
        assert named <= own


ARRAYS = (np.ndarray, np.generic, jax.Array)


def test_twins_close_over_no_arrays():
    for path in TWINS.rglob("*.py"):
        name = ".".join(["functional_lm.reference", *path.relative_to(TWINS).with_suffix("").parts])
        module = importlib.import_module(name.removesuffix(".__init__"))
        assert not [k for k, value in vars(module).items() if isinstance(value, ARRAYS)], name
