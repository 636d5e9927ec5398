"""Composition methods: one file each, all behind one protocol."""

from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_agents.methods.registry import MethodError, make_method, method_names, register_method

__all__ = ["CompositionMethod", "MethodError", "make_method", "method_names", "register_method"]
