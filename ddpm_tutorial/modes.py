"""Training mode and eval mode of a network that several threads may use.  Nothing about diffusion is here.

A module is in training mode (dropout runs) or in eval mode.  A denoiser wants eval mode for one call, and must leave behind what it found: a run that goes on
in eval mode trains without dropout, and no loss curve shows it.  Two threads that switch the same network by turns would each undo the other's switch, so
each holds the network's lock.
"""

from collections.abc import Callable
from contextlib import contextmanager
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from torch import nn

_locks: WeakKeyDictionary = WeakKeyDictionary()


def mode_of(net: nn.Module) -> RLock:
    """A lock for each network: whoever changes its mode, or relies on it, holds it."""
    return _locks.setdefault(net, RLock())


@contextmanager
def evaluating(net: Callable):
    """Eval mode inside the block for a network in training; afterwards every module is in the mode it was in.

    (Dropout must not run while sampling; and a thread that trains must not find its network in eval
    mode.)
    """
    if not isinstance(net, nn.Module) or torch.compiler.is_compiling():
        yield
        return
    with mode_of(net):
        training = [m for m in net.modules() if m.training] if net.training else []
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True
