"""The gradient of one batch, whatever the machine: in micro-batches, in half precision, shared out over processes.

None of that is in Algorithm 1, and none of it may change what is computed.  The gradient of a mean over a batch is the mean of the gradients of its
parts, and that is all there is to it: t, ε, flips and dropped labels were drawn for the whole batch (draws.py), each process takes its share
of the rows, each share goes through the network a few images at a time, and what comes out is the gradient of one batch, up to rounding.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..ddpm import drop_labels, loss
from ..terminal import out_of_memory
from .devices import gathered, processes
from .draws import Draw, seeded
from .state import TrainConfig, TrainState


class Batch(NamedTuple):
    """What one step learnt about its batch; the gradient itself is in .grad, clipped."""

    losses: Tensor                                              # (B,) of each image, on the CPU
    norm: float                                                 # of the gradient, before clipping
    stop: bool                                                  # whether any process was asked to stop


def parallel(net: nn.Module, config: TrainConfig) -> Callable:
    """The same network; of several processes, its gradients are averaged over them; compiled where that is asked for."""
    call = DistributedDataParallel(net) if processes()[1] > 1 else net
    return torch.compile(call) if config.compile else call


def asked_to_stop(state: TrainState, device: torch.device) -> bool:
    """Whether any process was: one that left alone would let the others wait for ever."""
    return bool(gathered(torch.tensor([float(state.stop)], device=device)).any())


def gradient(state: TrainState, call: Callable, images: Tensor, y: Tensor | None, transform: Callable, drawn: Draw) -> Batch:
    """∇_θ of the mean loss of one batch into .grad, clipped.  Where memory does not suffice, half as many images at a time: the batch stays what it is.

    call: the network, as `parallel` gave it;  transform: what makes a batch of [-1, 1] of a batch of images.
    """
    while True:
        try:
            return _gradient(state, call, images, y, transform, drawn)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        _halve(state)                                           # not in the except clause: the error would keep alive what filled the memory


def refuse_what_is_not_finite(state: TrainState, batch: Batch, lr: float) -> None:
    """Stop before weights and average have seen it.  (In float16 a gradient may overflow: the scaler then skips the step, and tries a smaller scale.)"""
    value = batch.losses.mean().item()
    if not (math.isfinite(value) and (math.isfinite(batch.norm) or state.scaler.get_scale() > 1)):
        raise FloatingPointError(f"loss {value}, gradient norm {batch.norm} at step {state.step}, learning rate {lr:.2g}: lower the learning rate "
                                 "or look for NaN in the data. The averaged weights were not touched.")


def _gradient(state, call, images, y, transform, drawn):
    model, config, (rank, world) = state.model, state.config, processes()
    share, where = config.batch // world, images.device
    micro, end, losses = min(config.micro or share, share), (rank + 1) * share, []
    state.optimizer.zero_grad()
    with _random_numbers(where, seeded(config.seed, 2, state.step, rank)):       # dropout's; each process drops other units
        for first in range(rank * share, end, micro):
            mine = slice(first, min(first + micro, end))
            x_0 = transform(images[drawn.rows[mine].to(where)])                 # (b, C, H, W)
            if config.flip:
                x_0 = torch.where((drawn.flip[mine] < 0.5).to(where).view(-1, 1, 1, 1), x_0.flip(-1), x_0)
            labels = y
            if y is not None:
                labels = drop_labels(y[drawn.rows[mine].to(where)], (drawn.drop[mine] < model.config.p_uncond).to(where), model.config.num_classes)
            with call.no_sync() if world > 1 and mine.stop < end else nullcontext():            # processes meet once a step, after the last micro-batch
                with torch.autocast(where.type, getattr(torch, config.precision), enabled=config.precision != "float32"):
                    per_image = loss(call, model.schedule, x_0, drawn.eps[mine].to(x_0), drawn.t[mine], labels, model.config.predict)
                # Sums over a share, divided by the whole batch: a mean of means would weigh the images of a shorter last part more.  DDP divides by `world`.
                state.scaler.scale(per_image.sum() * (world / config.batch)).backward()
            losses.append(per_image.detach())
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(model.net.parameters(), config.clip_grad)
    flag = torch.tensor([float(state.stop)], device=where)
    told = gathered(torch.cat([*losses, norm[None], flag])).cpu().view(world, share + 2)        # the one moment in which a GPU is waited for
    stop = bool(told[:, -1].any())
    if stop:                                                    # never set back: a signal may have come in the meantime
        state.stop = True
    return Batch(told[:, :share].flatten(), told[0, share].item(), stop)


@contextmanager
def _random_numbers(where: torch.device, seed: int) -> Iterator[None]:
    """Global random numbers from this seed; the caller's go on afterwards as if nothing had been drawn."""
    apple = torch.mps.get_rng_state() if where.type == "mps" else None          # which fork_rng does not know how to ask for
    try:
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        if apple is not None:
            torch.mps.set_rng_state(apple)


def _halve(state):
    """Out of memory: half as many images at a time, the same batch."""
    world = processes()[1]
    share = state.config.batch // world
    micro = min(state.config.micro or share, share)
    if world > 1 or micro == 1:                                 # other processes would wait for ever for this one
        raise MemoryError(f"out of memory with {micro} images at a time on each device: choose a smaller network"
                          + (f", or micro = {micro // 2}" if micro > 1 else ""))
    state.optimizer.zero_grad()
    torch.cuda.empty_cache()
    state.config = replace(state.config, micro=(micro + 1) // 2)
