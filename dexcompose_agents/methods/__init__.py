"""Composition methods: registrations of `CompositionSpec`, and plug-ins, all behind one protocol."""

from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_agents.methods.registry import MethodError, make_method, method_names, register_method
from dexcompose_agents.methods.spec import CompositionSpec

__all__ = ["CompositionMethod", "CompositionSpec", "MethodError", "make_method", "method_names", "register_method"]
