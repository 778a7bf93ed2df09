"""The shape of the house, held with `ast`: who imports whom, and what a layer file must have."""

import ast
import tomllib
from pathlib import Path

import pytest

from functional_lm.testing import registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "functional_lm"
TWINS = ROOT / "reference"

# Imports run strictly downwards; within a level only where a package imports its own files.
LEVELS = {
    "files": 0,
    "contract": 0,
    "pytree": 1,
    "prng": 1,
    "speed": 2,
    "numerics": 2,
    "rotation": 2,
    "gradient": 1,
    "heads": 2,
    "compose": 2,
    "layers": 3,
    "losses": 3,
    "optimizers": 3,
    "text": 3,
    "models": 4,
    "generation": 5,
    "training": 6,
    "runs": 7,
    "health": 8,
    "reports": 9,
    "testing": 6,
    "cli": 10,
    "__main__": 11,
}
FOUNDATION = {"contract", "pytree", "prng"}
# The only packages from outside that a part may import when it is imported itself.
OUTSIDE = {"cli": {"numpy", "rich", "tyro"}}
# ... and those that it may import inside of a function.
DEFERRED = {
    "speed": {"numpy", "threadpoolctl"},
    "reports": {"jinja2", "matplotlib", "tensorboardX"},
    "files": {"safetensors"},
    "runs": {"filelock", "safetensors"},
    "text": {"platformdirs"},
    "testing": {"jax", "pytest", "safetensors"},
    "cli": {"rich", "safetensors", "tyro", "uniplot"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return (absolute module, whether at the top level) for each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                found.append((f"{module}.{alias.name}", id(node) in top))
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    part = part_of(path)
    if part == "__init__":
        return
    for module, at_top in imports(path):
        names = module.split(".")
        if names[0] != "functional_lm":
            continue
        target = names[1]
        if target in ("__version__", part):
            sibling = part in ("layers", "losses") and path.name != "__init__.py"
            assert not sibling, f"{path.name} imports its sibling {module}"
        elif part == "testing":
            registry_may = path.name == "registry.py" and not at_top
            assert target in FOUNDATION or registry_may, module
        elif part in FOUNDATION:
            assert target in FOUNDATION or LEVELS[target] < LEVELS[part], module
        else:
            assert LEVELS[target] < LEVELS[part], f"{part} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_from_outside(path):
    import sys

    part = part_of(path)
    for module, at_top in imports(path):
        name = module.partition(".")[0]
        if name == "functional_lm" or name in sys.stdlib_module_names:
            continue
        allowed = OUTSIDE.get(part, {"numpy"})
        assert name in (allowed if at_top else allowed | DEFERRED.get(part, set())), module


def test_twins_never_import_functional_lm():
    for path in TWINS.rglob("*.py"):
        for module, _ in imports(path):
            assert not module.startswith("functional_lm"), f"{path} imports {module}"


MODULES = [
    (package, path.stem)
    for package in ("layers", "losses", "models")
    for path in sorted((PACKAGE / package).glob("*.py"))
    if path.stem not in ("__init__", "config", "loading")
]


@pytest.mark.parametrize(("package", "name"), MODULES)
def test_every_layer_is_whole(package, name):
    tree = ast.parse((PACKAGE / package / f"{name}.py").read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    assert "Shapes:" in docstring
    if package != "models":
        assert "VJP" in docstring
    order = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            order.append(node.name)
        elif ast.unparse(node) == "init = init_nothing":
            order.append("init")
    assert order.index("Residuals") < order.index("init") < order.index("forward")
    assert order[order.index("forward") + 1] == "vjp"
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions["forward"].args.args[0].arg == "params"
    assert len(functions["forward"].args.args) == 2
    assert [a.arg for a in functions["vjp"].args.args] == ["residuals", "g"]
    if "init" in functions:
        assert [a.arg for a in functions["init"].args.args] == ["key"]


@pytest.mark.parametrize(("package", "name"), MODULES)
def test_every_layer_has_a_twin_a_test_and_a_check(package, name):
    twin = ast.parse((TWINS / package / f"{name}.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(twin)
    functions = [node.name for node in twin.body if isinstance(node, ast.FunctionDef)]
    assert "forward" in functions
    assert "vjp" not in functions
    test = (ROOT / "tests" / package / f"test_{name}.py").read_text(encoding="utf-8")
    assert f'test_certified = certify("{name}")' in test
    assert name in registry.names()


def test_models_hold_no_formula():
    for path in (PACKAGE / "models").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        products = [node for node in ast.walk(tree) if isinstance(node, ast.MatMult)]
        assert not products, f"{path.name} multiplies matrices"


def test_no_file_holds_more_than_one_concept_can_fill():
    for path in [*FILES, *TWINS.rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_every_package_is_listed_for_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    folders = {"functional_lm"}
    for top, name in ((PACKAGE, "functional_lm"), (TWINS, "functional_lm.reference")):
        for init in top.rglob("__init__.py"):
            folders.add(".".join([name, *init.parent.relative_to(top).parts]))
    assert listed == folders


def test_nothing_else_lies_at_the_top():
    allowed = {"pyproject.toml", "README.md", "LICENSE", "functional_lm", "reference", "tests"}
    generated = {"build", "dist", "runs", "functional_lm.egg-info"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - generated <= allowed
