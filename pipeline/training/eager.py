"""Torch's optimisers without torch's compiler, which they import on their first use and never need outside of it.

That import takes more than a second and 100 MB in every process that trains. It only serves to tell the compiler, where
one traces an optimiser, to leave it out; here nothing but a model's pass is ever compiled.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """Return an optimiser of torch whose step and bookkeeping compute the same bits and import no compiler.

    Its hooks work, its name, arguments and state are the same. Where a torch has other insides, nothing is gained and
    nothing lost.
    """
    for part in vars(Optimizer).values():
        code = getattr(part, "__code__", None)
        if code is not None and code is _lazily_disabled.__code__:
            part.__wrapped__.__dynamo_disable = part.__wrapped__
    # Below torch's wrapper, which does no more than this one and breaks the graph of a compiler.
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {"step": step, "__module__": kind.__module__, "__doc__": kind.__doc__})


def _nothing() -> None:
    """Do nothing."""


_lazily_disabled = torch._disable_dynamo(_nothing)  # type: ignore[attr-defined]
"""Of the same code as every function that imports the compiler when it is first called."""
