"""A pretended GPU: tensors that say they are on one, while their numbers are on the CPU like all others.

A mode of torch's function protocol sees each call of a torch function, each method and property of a tensor.  It marks what is put on the device, and
what is computed there; it refuses what a real GPU would refuse, tensors of two devices in one call; and it writes down each moment in which Python would
have to wait for the device to be told a number.  It sees nothing that torch calls inside its own functions, and no kernel: that is what a GPU is for.
"""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ASIDE = {"_parse_to", "_has_compatible_shallow_copy_type"}      # of Module.to: they compute nothing
MOVES = {"to", "cpu", "cuda", "copy_", "as_tensor", "tensor"}  # from one device to another: no mixing
WAITS = {"item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__", "__contains__", "__format__", "__repr__", "is_nonzero",
         "nonzero", "masked_select", "equal", "allclose", "unique", "bincount", "argwhere", "cpu"}


def on_device(tensor):
    return getattr(tensor, "pretended", False)


class PretendedGPU(TorchFunctionMode):
    """`waits`: the names of the calls that would have had to wait."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        owner = getattr(func, "__self__", None)
        if name == "__get__" and owner in (Tensor.device, Tensor.is_cuda, Tensor.is_cpu):
            there = on_device(args[0])
            return {Tensor.device: CUDA if there else func(*args), Tensor.is_cuda: there, Tensor.is_cpu: not there}[owner]
        if name in ASIDE:
            return func(*args, **kwargs)
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        result_there = any(map(on_device, tensors))
        mixed = result_there and any(x.ndim and not on_device(x) for x in tensors)
        index = name == "__getitem__" and on_device(args[0])    # of an index a GPU makes a copy for itself
        if mixed and not index and name not in MOVES and name != "__set__":
            places = ", ".join(f"{tuple(x.shape)} on {CUDA if on_device(x) else CPU}" for x in tensors)
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {places}")

        # Where the result is to be: as the call says, or else where its tensors are.
        asked = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device) or (isinstance(x, str) and x.split(":")[0] in ("cpu", "cuda"))]
        if asked:
            result_there = torch.device(asked[0]).type == "cuda"
        elif name in ("to", "copy_", "__set__"):
            result_there = on_device(args[0]) if name == "copy_" or not isinstance(args[1], Tensor) else on_device(args[1])
        elif name in ("cpu", "cuda"):
            result_there = name == "cuda"

        leaves = result_there is False and name in MOVES and any(map(on_device, tensors))
        indexed_by_bool = name == "__getitem__" and any(x.dtype == torch.bool for x in tensors[1:])
        if any(map(on_device, tensors)) and (name in WAITS or leaves or indexed_by_bool):
            self.waits.append(name)

        args, kwargs = tree_map_only((torch.device, str), lambda x: CPU if x in asked else x, (args, kwargs)) if asked else (args, kwargs)
        result = args[0].clone() if name == "cuda" else func(*args, **kwargs)
        if name == "__set__" and owner is Tensor.data:
            args[0].pretended = result_there
        if name in MOVES and any(result is x and on_device(x) != result_there for x in tensors):
            result = result.clone()                             # to another device: never the same tensor
        for x in tree_iter(result):
            if isinstance(x, Tensor) and on_device(x) != result_there:
                x.pretended = result_there
        return result


@contextmanager
def pretended_gpu(monkeypatch):
    """What torch would ask of the driver is answered here."""
    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists, *args):
        return {(CUDA if on_device(value[0][0][0]) else device, dtype): value for (device, dtype), value in group(lists, *args).items()}

    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    fork, copied = torch.random.fork_rng, torch.nn.Parameter.__deepcopy__

    def deepcopy(parameter, memo):
        result = copied(parameter, memo)
        result.pretended = on_device(parameter)
        return result

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", deepcopy)           # the one way to a new tensor that the protocol does not see
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=(): fork(devices=[]))
    with PretendedGPU() as gpu:
        yield gpu
