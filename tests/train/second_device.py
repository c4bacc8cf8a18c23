"""A second device without hardware: PyTorch's ``meta`` tensors, with values computed on the processor.

To the program they lie on another device: what mixes the two, or has no repeatable version on CUDA, is a
fault. A recorded step may neither wait for the device nor copy from or to the processor, and what was
recorded is a list of operations on fixed tensors, as in a CUDA graph: a number that Python made is frozen in
it. Values belong to storages, so that views, and what autograd keeps, share them. What CUDA's own kernels do
inside an operation is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.train.capture import Recording

NAME = "meta"

# The value or the shape of the result is known only when the device is done: CUDA waits for it.
WAITS = {
    "_local_scalar_dense",
    "equal",
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
    "_linalg_check_errors",
}

# What torch.use_deterministic_algorithms(True) refuses on CUDA, here or in an older version (its
# documentation); the rest of that list are calls with particular arguments, see ``_unrepeatable``.
REFUSED = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "_ctc_loss_backward",
    "histc",
    "put_",
    "put",
    "kthvalue",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "scatter_reduce",
    "scatter_reduce_",
    "index_reduce",
    "index_reduce_",
}


class Fault(RuntimeError):
    """Tensors of two devices in one operation, or an operation that is not repeatable on CUDA."""


class Waits(RuntimeError):
    """A recorded step waits for the device or copies between the two."""


@dataclass
class Tape:
    """Recorded operations: what to call on which tensors, where results lie; ``saved``: values before."""

    calls: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = field(default_factory=list)
    saved: dict[int, tuple[UntypedStorage, UntypedStorage]] = field(default_factory=dict)

    def replay(self) -> None:
        """All of it again, on the same tensors."""
        for call, args, kwargs, results in self.calls:
            changed: list[Tensor] = []
            _each(changed.append, call(*args, **kwargs))
            for old, new in zip(results, changed, strict=False):  # what changes in place has no results
                old.copy_(new)


@dataclass(frozen=True)
class Kind:
    """What an operation's schema says: whether results share an argument's memory, and what it writes to."""

    name: str
    shares: bool
    writes: tuple[tuple[int, str], ...]
    returns: bool


@cache
def kind(func: Any) -> Kind:
    """The kind of an ATen operation."""
    schema = func._schema
    writes = tuple(
        (i, a.name)
        for i, a in enumerate(schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    )
    shares = any(r.alias_info is not None for r in schema.returns)
    return Kind(func.overloadpacket.__name__, shares, writes, bool(schema.returns))


class SecondDevice(TorchDispatchMode):
    """While it is entered, tensors of ``meta`` have values. ``faults`` lists every Fault that was raised."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, tuple[StorageWeakRef, UntypedStorage]] = {}
        self.most = 4096
        self.tape: Tape | None = None
        self.faults: list[str] = []
        self.built = _Built()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and asking takes longer than an operation

    def __enter__(self) -> SecondDevice:
        self.built.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.built.__exit__(*error)

    # The two functions of ``capture.Capturer``.
    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """A plain call: waiting and copies are allowed."""
        return step(), ""

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step; afterwards all tensors are as they were."""
        with self._recording() as tape:
            loss_R = step()
        return Recording(tape.replay, loss_R)

    @contextmanager
    def _recording(self) -> Iterator[Tape]:
        self.tape = tape = Tape()
        try:
            yield tape
        finally:
            self.tape = None
            for storage, before in tape.saved.values():
                storage.copy_(before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors: list[Tensor] = []
        _each(tensors.append, (args, kwargs) if kwargs else args)
        to = kwargs.get("device")
        if not _is_there(to) and not any(x.device.type == NAME for x in tensors):
            return func(*args, **kwargs)
        op = kind(func)
        written: list[Tensor] = []
        _each(written.append, [args[i] if i < len(args) else kwargs.get(name) for i, name in op.writes])
        self._judge(op.name, args, to, tensors, written)
        if op.shares and not written:
            return func(*args, **kwargs)  # a view shares its storage and so the values
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        real_args, real_kwargs = _each(self._real, args), _each(self._real, kwargs)
        if self.tape is not None:
            self._save(written)
        outcome = func(*real_args, **real_kwargs)
        results: list[Tensor] = []
        if self.tape is not None:
            self.tape.calls.append((func, real_args, real_kwargs, results))
        if written:
            return kwargs.get("out", args[0]) if op.returns else None
        back = op.name == "_to_copy" and to is not None and not _is_there(to)
        return outcome if back else _each(lambda x: self._moved(x, results), outcome)

    def _judge(self, name: str, args: Any, to: Any, tensors: list[Tensor], written: list[Tensor]) -> None:
        here, there = (args[0].device, to or args[0].device) if name == "_to_copy" else (None, None)
        if name == "copy_":
            here, there = args[0].device, args[1].device
        crosses = here != there
        if not crosses and any(
            x.device.type != NAME and (x.dim() or any(x is w for w in written)) for x in tensors
        ):
            self._fault(
                f"{name} mixes devices: {', '.join(f'{tuple(x.shape)} on {x.device}' for x in tensors)}"
            )
        if name in REFUSED or _unrepeatable(name, args, tensors):
            self._fault(f"{name} has no repeatable version on CUDA")
        if self.tape is not None:
            if crosses:
                raise Waits(f"{name} copies between devices")
            if name in WAITS or _masked(name, args):
                raise Waits(f"{name} waits for the device")

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        raise Fault(text)

    def _real(self, x: Tensor) -> Tensor:
        """The values of a tensor; they share memory where tensors do."""
        if x.device.type != NAME:
            return x
        known = self.values.get(x.untyped_storage()._cdata)
        assert known is not None, (
            f"a tensor of shape {tuple(x.shape)} was made where the second device could not see it"
        )
        return torch.empty(0, dtype=x.dtype).set_(known[1], x.storage_offset(), x.size(), x.stride())

    def _moved(self, x: Tensor, results: list[Tensor]) -> Tensor:
        """A tensor there with the values of ``x``."""
        if 0 in x.stride():
            x = x.contiguous()
        own = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype).copy_(x)
        made = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=NAME)
        storage = made.untyped_storage()
        self.values[storage._cdata] = StorageWeakRef(storage), own.untyped_storage()
        if len(self.values) > self.most:
            self.values = {key: v for key, v in self.values.items() if not v[0].expired()}
            self.most = max(4096, 2 * len(self.values))
        results.append(own)
        return made

    def _save(self, written: list[Tensor]) -> None:
        assert self.tape is not None
        for x in written:
            storage = self.values[x.untyped_storage()._cdata][1]
            if storage._cdata not in self.tape.saved:
                self.tape.saved[storage._cdata] = storage, storage.clone()


class _Built(TorchFunctionMode):
    """Tensors made of Python's numbers are copied from the processor; ``meta`` would forget the numbers.

    Inference mode is entered as no-grad mode, where operations arrive in the same parts as in training.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor and args[0].device.type == NAME:
            return torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype).to(NAME)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device.type == NAME:
            args = (args[0], _positions(args[1]), *args[2:])
        made = func in (torch.tensor, torch.as_tensor, torch.asarray) and not isinstance(args[0], Tensor)
        if made and _is_there(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": "cpu"}).to(NAME)
        return func(*args, **kwargs)


def no_inference_mode(mode: bool = True) -> Any:
    """Stands for ``torch.inference_mode``, under which operations arrive whole, not in their known parts."""
    return torch.no_grad() if mode else nullcontext()


def _positions(index: Any) -> Any:
    """An index whose lists of numbers are tensors on the device, as torch makes them."""
    if isinstance(index, tuple):
        return tuple(map(_positions, index))
    return torch.tensor(index).to(NAME) if isinstance(index, list) else index


def _unrepeatable(name: str, args: Any, tensors: list[Tensor]) -> bool:
    if name in ("cumsum", "cumsum_"):
        return tensors[0].is_floating_point()
    return (name in ("median", "nanmedian") and len(args) > 1) or (name == "bincount" and len(tensors) > 1)


def _masked(name: str, args: Any) -> bool:
    """Whether an index is a mask, whose positions CUDA must count first."""
    return name in ("index", "index_put", "index_put_") and any(
        i is not None and i.dtype == torch.bool for i in args[1]
    )


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _each(do: Callable[[Tensor], Any], tree: Any) -> Any:
    """``do`` of every tensor in nested tuples, lists and mappings; the rest as it is."""
    if isinstance(tree, Tensor):
        return do(tree)
    if isinstance(tree, tuple | list):
        return type(tree)([_each(do, x) for x in tree])
    return {key: _each(do, x) for key, x in tree.items()} if isinstance(tree, dict) else tree
