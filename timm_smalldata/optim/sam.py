"""Sharpness-aware minimisation around any optimizer.

SAM: Foret et al., ICLR 2021, https://arxiv.org/abs/2010.01412. ASAM: Kwon et al., ICML 2021,
https://arxiv.org/abs/2102.11600, element-wise, without its stabiliser eta.
"""
import math
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import torch

Pairs = List[Tuple[torch.Tensor, torch.Tensor]]


class SAM(torch.optim.Optimizer):
    """Step with the gradient of the place nearby where the loss is high: two passes an update.

    With g the gradient at the weights w over all groups, the passes are at w and at w + e,

        e = rho * g / (||g||_2 + 1e-12)                    SAM, eq. 2
        e = rho * w^2 * g / (|| |w| * g ||_2 + 1e-12)      ASAM, sec. 4, T_w = |w|

    and the base optimizer steps from w, restored to the bit, with the gradient found at w + e. Parameter groups and
    state are the base's own objects, so learning-rate schedulers can be given either of the two.

    A norm that is not finite moves nothing: the second pass repeats the first and the base gets its gradient, as it
    would without SAM. A gradient scaler (float16) cannot drive two passes: use bfloat16.

    Args:
        params: Tensors or group dicts, handed to the base.
        base_optimizer_cls: Optimizer class, or any callable `(params, **base_kwargs)` that returns an optimizer.
        rho: Radius, >= 0; an attribute that may be changed between steps. ASAM wants about ten times SAM's.
        adaptive: ASAM instead of SAM.
        **base_kwargs: Arguments of the base.

    Attributes:
        base: The base optimizer.
        needs_closure: Says to a training loop that `step` makes the passes itself.

    Raises:
        ValueError: `rho` is negative or not finite.

    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = SAM([w], torch.optim.SGD, rho=0.5, lr=0.1)
    >>> def closure():
    ...     loss = 0.5 * w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    12.5
    >>> w.data  # the gradient was that of (3.3, 4.4)
    tensor([2.6700, 3.5600])
    """
    needs_closure = True

    def __init__(
            self,
            params: Iterable[Any],
            base_optimizer_cls: Callable[..., torch.optim.Optimizer],
            rho: float = 0.05,
            adaptive: bool = False,
            **base_kwargs: Any,
    ):
        if not (rho >= 0 and math.isfinite(rho)):
            raise ValueError(f'rho is a radius, finite and at least 0, not {rho}.')
        base = base_optimizer_cls(params, **base_kwargs)
        super().__init__(base.param_groups, base.defaults)
        self.base, self.rho, self.adaptive = base, float(rho), bool(adaptive)
        self._share()

    @classmethod
    def wrap(cls, optimizer: torch.optim.Optimizer, rho: float = 0.05, adaptive: bool = False) -> 'SAM':
        """Wrap an optimizer that exists, such as one of timm's with its parameter groups."""
        return cls([], lambda params: optimizer, rho, adaptive)

    def _share(self) -> None:
        """Hold the groups, state and defaults of the base; loading gives the base new ones."""
        self.param_groups, self.state, self.defaults = self.base.param_groups, self.base.state, self.base.defaults

    @torch.no_grad()
    def step(
            self,
            closure: Optional[Callable[[], Any]] = None,
            before_step: Optional[Callable[[], None]] = None,
    ) -> Any:
        """Make one update.

        Args:
            closure: Does forward and backward and returns the loss; it never zeroes gradients. Called exactly twice;
                should it raise, the weights are restored.
            before_step: Called when the weights are restored and hold the second gradient: clip here.

        Returns:
            The loss of the first pass.

        Raises:
            ValueError: There is no closure.
        """
        if closure is None:
            raise ValueError('SAM.step needs a closure that does forward and backward and returns the loss.')
        closure = torch.enable_grad()(closure)
        self.zero_grad()
        loss = closure()
        # all copies before any change: parameters may share storage. A set: a group may name a parameter twice
        perturbed = {p: None for group in self.param_groups for p in group['params'] if p.grad is not None}
        kept = [(p, p.clone()) for p in perturbed]
        try:
            self._ascend(kept)
            self.zero_grad()
            closure()
        finally:
            for p, w in kept:  # whatever has a gradient by now
                p.copy_(w)
        kept.clear()
        if before_step is not None:
            before_step()
        self.base.step()
        return loss

    def _ascend(self, kept: Pairs) -> None:
        """Add e to the parameters, from their copies and gradients; in float32 at least, without a wait for the device.

        Args:
            kept: Parameters and copies of them.
        """
        if not kept:
            return
        grads = [_wide(p.grad) for p, _ in kept]
        steps = [w.abs() * g for (_, w), g in zip(kept, grads)] if self.adaptive else grads
        device = kept[0][0].device
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(s).to(device) for s in steps]))
        finite, scale = norm.isfinite(), self.rho / (norm + 1e-12)
        for (p, w), s in zip(kept, steps):
            e = scale.to(p.device) * (w.abs() * s if self.adaptive else s)
            p.add_(torch.where(finite.to(p.device), e, 0))

    def add_param_group(self, param_group: Dict[str, Any]) -> None:
        """Add a group to the base, and so to both."""
        if hasattr(self, 'base'):  # torch's constructor offers the groups that the base has already
            self.base.add_param_group(param_group)

    def state_dict(self) -> Dict[str, Any]:
        """Return the base's state with `rho` and `adaptive` beside it; the base can load it too."""
        return {**self.base.state_dict(), 'rho': self.rho, 'adaptive': self.adaptive}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load what `state_dict` returned, or a state of the base alone (`rho` and `adaptive` stay)."""
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k not in ('rho', 'adaptive')})
        self.rho = state_dict.get('rho', self.rho)
        self.adaptive = state_dict.get('adaptive', self.adaptive)
        self._share()

    def __getstate__(self) -> Dict[str, Any]:
        return dict(base=self.base, rho=self.rho, adaptive=self.adaptive)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        shared = {name: getattr(state['base'], name) for name in ('param_groups', 'state', 'defaults')}
        super().__setstate__({**state, **shared})


def _wide(gradient: Any) -> torch.Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))
