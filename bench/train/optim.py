"""Update stacked replicas: one step of an optimiser changes R sets of parameters, each with its own rate.

Every tensor carries the replica axis first, (R, ...); learning rates and decays are (R,). Per replica the
arithmetic is that of ``torch.optim`` (AdamW, Adam with coupled decay, SGD with momentum). Updates are in
place. No step reads a tensor back from a device, so that a step can be recorded in a CUDA graph. Therefore
the step counter lies on the device of the parameters.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.lazy import torch
from bench.recipe import OptimSpec

# Half precision keeps no second moment below this (protocol 12.4): half of the smallest fp16 number, 2^-24.
HALF_FLUSH = 3e-8

# From this many elements of one replica, memory traffic limits a step, so one fused pass over each replica is
# faster than several passes over all replicas. For smaller replicas the calls cost more than they save. The
# CPU's number is measured. CUDA's is where 20 passes over a replica take an H100 as long as one launch in a
# graph, by its data sheet.
_FUSE_FROM = {"cpu": 1 << 12, "cuda": 1 << 16}

# List kernels get tensors of at most this many elements together, which bounds their temporaries.
_GROUP = 1 << 22


def bytes_per_parameter(spec: OptimSpec, itemsize: int = 4) -> int:
    """Return the bytes of optimiser state per parameter and replica, without weights and gradients."""
    if spec.name == "sgd":
        return itemsize if spec.momentum else 0
    return 2 * itemsize


class Optimiser:
    """The parts that all optimisers share: stacked parameters, the number of replicas and the step number.

    ``params``: name -> (R, ...) contiguous float tensors of one dtype and device, kept by reference and
    changed in place. ``wd``: the replicas' decays. ``step`` takes gradients of the same names and shapes,
    which it does not change, and the rates ``lr_R`` (R,) on the parameters' device. Give the rates in
    float64, because products such as rate times decay are formed before rounding to the parameters' dtype.
    """

    def __init__(self, spec: OptimSpec, params: Mapping[str, torch.Tensor], wd: Sequence[float]) -> None:
        assert params, "nothing to optimise"
        self.spec = spec
        self.names = tuple(params)
        self.params = [params[name].detach() for name in self.names]
        first = self.params[0]
        self.replicas = first.shape[0]
        for name, param in zip(self.names, self.params, strict=True):
            assert param.is_contiguous() and param.is_floating_point(), name
            assert (param.shape[0], param.dtype, param.device) == (
                self.replicas,
                first.dtype,
                first.device,
            ), name
        assert len(wd) == self.replicas, (len(wd), self.replicas)
        self.wd = [float(decay) for decay in wd]
        self.wd_R = torch.tensor(self.wd, dtype=torch.float64, device=first.device)
        self.t = torch.zeros((), dtype=torch.float64, device=first.device)

    def step(self, grads: Mapping[str, torch.Tensor], lr_R: torch.Tensor) -> None:
        """Update every replica once, in place."""
        assert lr_R.shape == (self.replicas,), (lr_R.shape, self.replicas)
        with torch.no_grad():
            ordered = [grads[name] for name in self.names]
            if self.spec.clip_norm is not None:
                ordered, _ = clip(ordered, self.spec.clip_norm)
            self.t += 1.0
            self._update(ordered, lr_R.double())

    def _update(self, grads: list[torch.Tensor], lr_R: torch.Tensor) -> None:
        raise NotImplementedError


class SGD(Optimiser):
    """Momentum SGD with coupled decay, as ``torch.optim.SGD``: b = momentum b + (g + wd p), p -= lr b."""

    def __init__(self, spec: OptimSpec, params: Mapping[str, torch.Tensor], wd: Sequence[float]) -> None:
        super().__init__(spec, params, wd)
        self.buffers = [torch.zeros_like(p) for p in self.params] if spec.momentum else []

    def _update(self, grads: list[torch.Tensor], lr_R: torch.Tensor) -> None:
        for i, (param, grad) in enumerate(zip(self.params, grads, strict=True)):
            decay, rate = _along(self.wd_R, param), _along(lr_R, param)
            if self.buffers:
                direction = self.buffers[i].mul_(self.spec.momentum).add_(grad).addcmul_(param, decay)
            else:
                direction = torch.addcmul(grad, param, decay)
            param.addcmul_(direction, rate, value=-1.0)


class AdamW(Optimiser):
    """AdamW, as ``torch.optim.AdamW``: p *= 1 - lr wd, then p -= lr (m / c1) / (sqrt(v / c2) + eps).

    c1 = 1 - beta1^t and c2 = 1 - beta2^t correct the moments' start at zero.
    """

    coupled = False

    def __init__(self, spec: OptimSpec, params: Mapping[str, torch.Tensor], wd: Sequence[float]) -> None:
        super().__init__(spec, params, wd)
        self.first = [torch.zeros_like(p) for p in self.params]
        self.second = [torch.zeros_like(p) for p in self.params]
        self._fuse = self._fusible()
        self._views = list(zip(*map(_by_replica, (self.params, self.first, self.second)), strict=True))
        self._groups = _groups([p.numel() for p in self.params])

    def _update(self, grads: list[torch.Tensor], lr_R: torch.Tensor) -> None:
        if self._fuse:
            return self._fused(grads, lr_R)
        beta1, beta2 = self.spec.betas
        rate_R = lr_R / (1.0 - beta1**self.t)
        root = torch.sqrt(1.0 - beta2**self.t).to(self.params[0].dtype)
        shrink_R = 1.0 - lr_R * self.wd_R
        for group in self._groups:
            params, g = [self.params[i] for i in group], [grads[i] for i in group]
            first, second = [self.first[i] for i in group], [self.second[i] for i in group]
            if self.coupled:
                g = [torch.addcmul(x, p, _along(self.wd_R, p)) for x, p in zip(g, params, strict=True)]
            else:
                for p in params:
                    p.mul_(_along(shrink_R, p))
            torch._foreach_lerp_(first, g, 1.0 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, g, g, 1.0 - beta2)
            if self.spec.half_state:
                for v in second:
                    torch.nn.functional.threshold(v, HALF_FLUSH, 0.0, inplace=True)
            scaled = torch._foreach_sqrt(second)
            torch._foreach_div_(scaled, root)
            torch._foreach_add_(scaled, self.spec.eps)
            for p, m, d in zip(params, first, scaled, strict=True):
                p.addcmul_(torch.div(m, d, out=d), _along(rate_R, p), value=-1.0)

    def _fusible(self) -> bool:
        """Return whether replicas are large enough for PyTorch's fused kernels, and these agree."""
        kind, dtype = self.t.device.type, self.params[0].dtype
        if self.spec.half_state or kind not in _FUSE_FROM:
            return False
        # On CUDA the kernel reads the rate and step number as float32, too coarse for float64 parameters.
        fine = kind == "cpu" or dtype == torch.float32
        return fine and sum(p[0].numel() for p in self.params) >= _FUSE_FROM[kind]

    def _fused(self, grads: list[torch.Tensor], lr_R: torch.Tensor) -> None:
        """Update with one pass per replica, which touches weights, gradients and both moments once.

        Rates and the step number are passed as tensors, so that a recorded step reads their present values.
        """
        kernel = torch._fused_adam_ if self.coupled else torch._fused_adamw_
        beta1, beta2 = self.spec.betas
        read = torch.float32 if self.t.device.type == "cuda" else torch.float64
        rates, steps = lr_R.to(read).unbind(), [self.t.to(read)] * len(grads)
        for (p, m, v), g, lr, decay in zip(self._views, _by_replica(grads), rates, self.wd, strict=True):
            kernel(
                p,
                g,
                m,
                v,
                [],
                steps,
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=self.spec.eps,
                amsgrad=False,
                maximize=False,
            )


class Adam(AdamW):
    """Adam with L2-coupled decay, as ``torch.optim.Adam``: the moments are those of gradient + wd p."""

    coupled = True


def make(spec: OptimSpec, params: Mapping[str, torch.Tensor], wd: Sequence[float]) -> Optimiser:
    """Return the optimiser of ``spec`` over stacked ``params`` (name -> (R, ...)) and decays."""
    kinds: dict[str, type[Optimiser]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
    return kinds[spec.name](spec, params, wd)


def clip(grads: list[torch.Tensor], bound: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return each replica's gradients, scaled to a global norm of at most ``bound``, and the norms (R,).

    The norms are those before scaling. As in ``torch.nn.utils.clip_grad_norm_``, the factor over all tensors
    is min(1, bound / (norm + 1e-6)).
    """
    # Each replica's slice is reduced on its own: a reduction over stacked rows may round differently with R.
    slices = [piece for g in grads for piece in g.unbind()]
    norms = torch.stack(torch._foreach_norm(slices)).view(len(grads), -1)
    norm_R = sum(x_R * x_R for x_R in norms).sqrt()
    factor_R = (bound / (norm_R + 1e-6)).clamp(max=1.0)
    return [g * _along(factor_R, g) for g in grads], norm_R


def _along(x_R: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return per-replica numbers shaped (R, 1, ...), to broadcast over ``like``, in its dtype."""
    return x_R.to(like.dtype).view(-1, *(1,) * (like.dim() - 1))


def _by_replica(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    """Return for every replica its slice of every tensor."""
    return list(zip(*(x.contiguous().unbind() for x in tensors), strict=True))


def _groups(sizes: list[int]) -> list[list[int]]:
    """Divide the positions in ``sizes``, in order, into groups that go to a list kernel together.

    A group has at most ``_GROUP`` elements, unless it is a single tensor.
    """
    groups: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = _GROUP
        groups[-1].append(i)
        room -= size
    return groups
