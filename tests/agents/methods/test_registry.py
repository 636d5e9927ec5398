"""Methods by name, by "module:Class" and by entry point, and what is refused."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dexcompose_agents.methods import (
    CompositionMethod,
    MethodError,
    make_method,
    method_names,
    register_method,
    registry,
)

PAIR = "GraspBall-PushButton"


class Still:
    """Keeps the hand where it is."""

    name = "still"

    def __init__(self, pair: str, speed: float = 1.0) -> None:
        self.pair, self.speed = pair, speed

    def reset(self, obs: Any, info: Any, env_ids: Any, seeds: Any) -> None:
        """Nothing to remember."""

    def act(self, obs: Any) -> Any:
        """Zeros."""
        return np.zeros((len(obs["context"]), 28), np.float32)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that holds `Still` and things that are no methods."""
    name = "methods_of_somebody"
    made = ModuleType(name)
    made.Still, made.number, made.Other = Still, 3, lambda pair: object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, made)
    return name


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test end with it."""
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))


def test_built_in_methods_are_known() -> None:
    assert method_names()[:3] == ("frozen", "zero-shot", "dexcompose")


def test_module_and_class(module: str) -> None:
    method = make_method(f"{module}:Still", PAIR, speed=2.0)
    assert isinstance(method, CompositionMethod)
    assert (method.pair, method.speed) == (PAIR, 2.0)  # type: ignore[attr-defined]


def test_registration_and_duplicates() -> None:
    register_method("still", Still)
    assert make_method("still", PAIR).name == "still"
    for name in ("still", "frozen"):
        with pytest.raises(MethodError, match=f"'{name}' is registered already"):
            register_method(name, Still)


@pytest.mark.parametrize("name", ["", "a:b", "a/b", "a b", "a,b"])
def test_names_that_tables_cannot_hold(name: str) -> None:
    with pytest.raises(MethodError, match="method name must be a word"):
        register_method(name, Still)


def test_entry_points(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    def entry_points(group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint("theirs", f"{module}:Still", group)]

    monkeypatch.setattr(registry.metadata, "entry_points", entry_points)
    assert "theirs" in method_names()
    assert make_method("theirs", PAIR).name == "still"


def test_entry_point_must_not_replace_a_method(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    def entry_points(group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint("frozen", f"{module}:Still", group)]

    monkeypatch.setattr(registry.metadata, "entry_points", entry_points)
    with pytest.raises(MethodError, match="'frozen' of entry point"):
        method_names()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magic", {}, "unknown method 'magic'; expected one of frozen, zero-shot, dexcompose"),
        ("no_such_module:Class", {}, "cannot import module 'no_such_module'"),
        ("{module}:Nothing", {}, "has no class 'Nothing'"),
        ("{module}:number", {}, "has no class 'number'"),
        ("{module}:Other", {}, "is not a composition method"),
        ("{module}:Still", {"mask": "TH+MF"}, "no option 'mask'"),
        ("{module}:Still", {"pace": 1}, "no option 'pace' .got 1.; its options: speed"),
        ("{module}:", {}, "has no class ''"),
    ],
)
def test_what_is_refused(module: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make_method(name.format(module=module), PAIR, **options)
    assert "\n" not in str(caught.value)


def test_selector_is_ignored_by_methods_without_a_mask(module: str) -> None:
    assert make_method(f"{module}:Still", PAIR, selector="utility").name == "still"


def test_unknown_pair() -> None:
    with pytest.raises(ValueError, match="expected one of GraspBall-OpenDoor"):
        make_method("frozen", "GraspBall-Violin")
