"""What a composition method is: an agent that turns observations of a composite task into actions (Eq. 1)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dexcompose_envs.agent import Agent


@runtime_checkable
class CompositionMethod(Agent, Protocol):
    """A composition ``a_comp = F(o, a_A, a_B)`` (Eq. 1), batched over N worlds.

    It reads ``task_a`` (N, a), ``task_b`` (N, b) and ``context`` (N, c).

    An agent whose class is constructed as ``Class(pair, **options)`` can be evaluated by "module:Class" or through the
    entry-point group ``dexcompose.methods``.

    Two more attributes are used where they exist: ``selector`` (name of the selector that chose the finger mask, for
    the results table) and ``describe()`` (a JSON-able dict of what determines the method's actions: mask, hashes of
    weights; an evaluation is resumed only if it is unchanged).

    Evaluation speaks NumPy. The methods of this package also take observations of torch tensors and then answer with a
    tensor on their device.
    """
