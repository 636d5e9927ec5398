"""Everything that acts in the environments of `dexcompose_envs`: base policies, residuals, composition methods.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import load_policy
    from dexcompose_agents.methods import CompositionMethod, CompositionSpec, make_method
    from dexcompose_agents.methods.parts import load_mask, load_stabiliser

__all__ = ["CompositionMethod", "CompositionSpec", "load_mask", "load_policy", "load_stabiliser", "make_method"]

_HOMES = {"load_mask": "methods.parts", "load_policy": "diffusion.policy", "load_stabiliser": "methods.parts"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'methods')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
