import ast
from pathlib import Path

import pytest

import harness
import pruning

PACKAGES = {
    package.__name__: Path(package.__path__[0]) for package in (pruning, harness)
}  # `harness` need not have an `__init__.py`
MODULES = {
    ".".join((name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
    for name, root in PACKAGES.items()
    for path in sorted(root.rglob("*.py"))
}


def imported_names(source, module, *, is_package=False, only_at_import=False):
    """Return the absolute dotted names that a module's source imports, with those it takes from them.

    `from a import b` gives both `a` and `a.b`, since b may be a module. With `only_at_import`, what stands within
    functions is left out, as it runs later.
    """
    names = set()
    nodes = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = module.split(".")
            origin = origin[: len(origin) - node.level + is_package] if node.level else []
            origin += node.module.split(".") if node.module else []
            names.add(".".join(origin))
            names.update(".".join([*origin, alias.name]) for alias in node.names)
        if only_at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        nodes.extend(ast.iter_child_nodes(node))
    return names


def packages_of(names):
    """Return the top-level packages of dotted names."""
    return {name.partition(".")[0] for name in names}


def forbidden_imports(module, source, *, is_package=False):
    """Return what a module of ours imports that it must not, by the one-way rules of the repository."""
    names = imported_names(source, module, is_package=is_package)
    forbidden = set()
    if packages_of([module]) == {"harness"}:
        forbidden |= {"pruning.state_dict", "pruning.prune_state_dict"}  # the judge has its own matcher of keys
    if packages_of([module]) == {"pruning"}:
        forbidden |= {"harness", "pytest", "_pytest", "hypothesis", "pytest_prunecheck"}
        runs_the_model = module == "pruning.load" or module.startswith(
            (
                "pruning.remote.configuration_",
                "pruning.remote.modeling_",
                "pruning.remote.hollow_",
                "pruning.remote.pruned_",
            )
        )
        if not runs_the_model:
            forbidden |= {"torch", "transformers", "safetensors", "accelerate", "numpy"}
    if module in ("harness.reference.models", "harness.reference.tolerances"):
        forbidden |= {"pruning"}  # what judges must not lean on what is judged
    return (names | packages_of(names)) & forbidden


def cycle(imports):
    """Return a cycle among modules that import each other, as a list that ends where it begins, or []."""
    done = set()

    def walk(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(imports.get(module, ())):
            if found := walk(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(imports) if (found := walk(module, []))), [])


def imports_within(package):
    """Return module -> modules of the same package that it imports while it is imported itself.

    The package's own `__init__` is no part of it: Python runs it before any of its modules, whatever they import.
    """
    modules = {name: path for name, path in MODULES.items() if name.startswith(f"{package}.")}
    return {
        name: imported_names(
            path.read_text(), name, is_package=path.name == "__init__.py", only_at_import=True
        ).intersection(modules)
        for name, path in modules.items()
    }


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    """`pruning` needs no test library, only the model files need torch, references no `pruning`, judges no matcher."""
    path = MODULES[module]
    assert not forbidden_imports(module, path.read_text(), is_package=path.name == "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package):
    """Within a package, no module imports, while it is imported, one that imports it."""
    assert cycle(imports_within(package)) == []


def test_the_walk_finds_the_modules():
    """The modules under test are there: an empty walk would hold every rule."""
    assert {"pruning", "pruning.plan", "pruning.remote.modeling_pruned_qwen3", "harness.errors"} <= MODULES.keys()
    assert "pruning.plan" in imports_within("pruning")["pruning.state_dict"]
    assert "pruning.remote.per_layer_skip" in imports_within("pruning")["pruning.plan"]


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("pruning.plan", "import harness", {"harness"}),
        ("pruning.plan", "from harness.suite import x", {"harness"}),
        ("pruning.remote.modeling_x", "def f():\n    import pytest", {"pytest"}),
        ("pruning.load", "if True:\n    from hypothesis import given as g", {"hypothesis"}),
        ("pruning.plan", "import os, torch.nn as nn", {"torch"}),
        ("pruning.prune", "def f():\n    class C:\n        from transformers import x", {"transformers"}),
        ("pruning", "from transformers import x", {"transformers"}),
        ("pruning.load", "import torch, transformers", set()),
        ("pruning.remote.hollow_modules", "import torch", set()),
        ("pruning.remote.per_layer_skip", "import torch", {"torch"}),
        ("harness.reference.models", "from pruning.plan import PrunePlan", {"pruning"}),
        ("harness.reference.tolerances", "def f():\n    import pruning", {"pruning"}),
        ("harness.reference.models", "import torch, transformers", set()),
        ("harness.plugin", "import pruning, pytest, hypothesis", set()),
        ("harness.models.session", "from pruning.state_dict import sublayer_of", {"pruning.state_dict"}),
        ("harness.checks.stored.keys", "def f():\n    from pruning import state_dict", {"pruning.state_dict"}),
        ("harness.judge.judge", "from pruning import prune_state_dict", {"pruning.prune_state_dict"}),
        ("harness.subject.subject", "from .sublayer_keys import sublayer_of", set()),
        ("pruning.plan", "# import harness\n'import torch'", set()),
    ],
)
def test_planted_imports_are_found(module, source, found):
    """An import that breaks a rule is found wherever it stands in a source, and one that does not is not."""
    assert forbidden_imports(module, source) == found


@pytest.mark.parametrize(
    ("source", "is_package", "names"),
    [
        ("from .b import c", False, {"p.b", "p.b.c"}),
        ("from . import b", False, {"p", "p.b"}),
        ("from ..q import b", False, {"q", "q.b"}),
        ("from .b import c", True, {"p.a.b", "p.a.b.c"}),
        ("import p.b as c", False, {"p.b"}),
        ("def f():\n    from .b import c", False, set()),
        ("class C:\n    from .b import c", False, {"p.b", "p.b.c"}),
        ("try:\n    import x\nexcept ImportError:\n    import y", False, {"x", "y"}),
    ],
)
def test_names_are_resolved(source, is_package, names):
    """Relative imports become absolute names; those in functions are left out where only the import matters."""
    assert imported_names(source, "p.a", is_package=is_package, only_at_import=True) == names


def test_planted_cycles_are_found():
    """A cycle of any length is found, also behind modules that are in none; a diamond is no cycle."""
    assert cycle({"a": {"b"}, "b": {"a"}}) == ["a", "b", "a"]
    assert cycle({"a": {"a"}}) == ["a", "a"]
    assert cycle({"0": {"b"}, "b": {"c"}, "c": {"d", "e"}, "d": set(), "e": {"b"}}) == ["b", "c", "e", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
