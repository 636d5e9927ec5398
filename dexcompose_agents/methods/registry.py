"""Composition methods by name: the built-in ones, the entry-point group ``dexcompose.methods``, and "module:Class".

Behind a name stands a class ``Class(pair, **options)``, or a `CompositionSpec`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_agents.methods.spec import SHIPPED, CompositionSpec
from dexcompose_envs import FingerMask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import composite_name

MethodTarget = Callable[..., CompositionMethod] | CompositionSpec

_methods: dict[str, str | MethodTarget] = {
    # No finger is released: all stay at A's reference hold action, only the wrist belongs to pi_B.
    "frozen": CompositionSpec(mask=FingerMask.all_fingers(), stabiliser=None),
    # The chosen mask and stabiliser A, pi_B as it is ("Ours-ZS" in the paper).
    "zero-shot": CompositionSpec(),
    # The whole method: residual B on top.
    "dexcompose": CompositionSpec(residual=SHIPPED),
    # The chosen mask alone: preserved fingers stay at the reference hold action.
    "no-stabiliser": CompositionSpec(stabiliser=None),
    # The chosen mask, and scripted parts instead of learned ones: ours, not the paper's.
    "constant-squeeze": CompositionSpec(stabiliser="constant-squeeze"),
    "reflex": CompositionSpec(stabiliser="reflex", residual="wrist-feedback"),
    # Proves that a pair can be solved.
    "oracle": CompositionSpec(stabiliser="firm-squeeze", residual="wrist-feedback"),
}


class MethodError(UsageError):
    """A composition method that does not exist, cannot be imported, or is registered twice; one line."""


def register_method(name: str, target: str | MethodTarget) -> None:
    """Register a method for this process; packages use the entry-point group ``dexcompose.methods`` instead.

    Args:
        name: Name in commands and tables.
        target: A `CompositionSpec`, a callable ``factory(pair, **options)``, or "module:NAME" of either.

    Raises:
        MethodError: If the name is taken, empty, or contains a colon, comma, slash or white space.
    """
    if not name or any(character in ":,/" or character.isspace() for character in name):
        raise MethodError(f"method name must be a word without ':', ',' or '/', got '{name}'")
    if name in _known():
        raise MethodError(f"method '{name}' is registered already; choose another name")
    _methods[name] = target


def _known() -> dict[str, str | MethodTarget]:
    """All methods by name; an entry point whose name is taken is refused."""
    known = dict(_methods)
    for entry_point in metadata.entry_points(group="dexcompose.methods"):
        if known.setdefault(entry_point.name, entry_point.value) != entry_point.value:
            raise MethodError(f"method '{entry_point.name}' of entry point '{entry_point.value}' is registered already")
    return known


def method_names() -> tuple[str, ...]:
    """Names of all methods: built-in ones first, then those of other packages."""
    return tuple(_known())


def _load(target: str) -> MethodTarget:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as error:  # the last two: a relative or an empty module name
        raise MethodError(f"cannot import module '{module_name}' of method '{target}': {error}") from None
    found = getattr(module, attribute, None)
    if not callable(found) and not isinstance(found, CompositionSpec):
        raise MethodError(f"module '{module_name}' has no class '{attribute}' for method '{target}'")
    return found


def _accepted(name: str, pair: str, target: MethodTarget, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` that are set; one that is set but that the method does not know is an error."""
    takes_any = False
    if isinstance(target, CompositionSpec):
        names = set(target.options)
    else:
        parameters = inspect.signature(target).parameters.values()
        names = {parameter.name for parameter in parameters}
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    chosen = {option: value for option, value in options.items() if value is not None}
    if not takes_any:
        for optional in {"selector", "device"} - names:
            chosen.pop(optional, None)
        for option in sorted(set(chosen) - names):
            known, got = ", ".join(sorted(names - {"pair"})) or "none", repr(chosen[option])
            raise MethodError(f"method '{name}' has no option '{option}' (got {got}); its options: {known}")
    if isinstance(target, CompositionSpec):
        return chosen
    try:
        inspect.signature(target).bind(pair, **chosen)
    except TypeError as error:
        raise MethodError(f"method '{name}' cannot be made as Class(pair, **options): {error}") from None
    return chosen


def make_method(name: str, pair: str, **options: Any) -> CompositionMethod:
    """Make a composition method for a pair.

    Args:
        name: A registered name, or "module:Class".
        pair: "GraspBall-PushButton".
        **options: Options of the method, such as ``mask="TH+MF+RF"``; those that are ``None`` are left to the method.
            ``selector`` (whose mask is used) and ``device`` are ignored by methods without a mask or networks.

    Raises:
        MethodError: If the method does not exist, has no such option, or is not a composition method.
        UsageError: If the pair does not exist or an option has a wrong value.
        FileError: If a file of weights or masks is missing, damaged, or belongs to something else.
    """
    pair = composite_name(pair)
    known = _known()
    target = known.get(name, name if ":" in name else None)
    if target is None:
        raise MethodError(f"unknown method '{name}'; expected one of {', '.join(known)}, or 'module:Class'")
    if isinstance(target, str):
        target = _load(target)
    chosen = _accepted(name, pair, target, options)
    if isinstance(target, CompositionSpec):
        from dexcompose_agents.methods.composed import ComposedMethod

        target = partial(ComposedMethod, name, target)
    method = target(pair, **chosen)
    if not isinstance(method, CompositionMethod):
        raise MethodError(f"'{name}' is not a composition method: it needs a name, reset() and act()")
    return method
