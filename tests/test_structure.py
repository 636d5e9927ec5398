"""The house's own rules: imports run downwards and never in a circle, and importing it costs no torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("dexcompose_envs", "dexcompose_agents") for path in (ROOT / package).rglob("*.py"))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported(path, nodes):
    """Modules of ours that some statements import; a package only where a name is not one of its modules."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def graph():
    """Who imports whom, imports within functions and for the type checker alone included."""
    edges = {}
    for name, path in MODULES.items():
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        edges[name] = {other for other in imported(path, nodes) if other in MODULES and other != name}
    return edges


def test_imports_make_no_circle():
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail("import circle: " + " -> ".join(error.args[1]))


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


def test_environments_know_nothing_of_agents():
    for name, path in MODULES.items():
        if name.startswith("dexcompose_envs"):
            everywhere = ast.walk(ast.parse(path.read_text("utf-8")))
            up = [other for other in imported(path, everywhere) if other.startswith("dexcompose_agents")]
            assert not up, f"{name} imports {up}"


def test_learners_know_nothing_of_hands():
    plain = ("files", "errors", "checks", "artefacts")
    known = tuple(f"dexcompose_envs.{name}" for name in plain)
    known += tuple(f"dexcompose_agents.{room}" for room in ("rl", "runtime", "artefacts"))
    for name, path in MODULES.items():
        if name.startswith("dexcompose_agents.rl"):
            for other in imported(path, ast.walk(ast.parse(path.read_text("utf-8")))):
                assert other.startswith(known) or not other.startswith("dexcompose"), f"{name} imports {other}"


@pytest.mark.parametrize("package", ["dexcompose_agents", "benchmarks"])
def test_nobody_reaches_through_an_environment_into_its_core(package):
    for path in (ROOT / package).rglob("*.py"):
        assert "unwrapped.core" not in path.read_text("utf-8"), path


def test_files_hold_one_concept_each():
    longest = max(FILES, key=lambda path: len(path.read_text("utf-8").splitlines()))
    assert len(longest.read_text("utf-8").splitlines()) <= 450, longest


def test_importing_the_environments_imports_no_torch():
    code = "import sys, dexcompose_envs.vector_env, dexcompose_envs.wrappers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)
