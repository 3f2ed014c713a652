"""Tasks that train a backbone under a head which is thrown away: the user gets the backbone."""
from typing import Any, Dict, Optional, Tuple

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .base import TaskHooks


class HeadedModel(nn.Module):
    """A timm model without classifier and a head on its features, as one module with one forward.

    What the backbone names in `no_weight_decay` (position embedding, class token) is decayed like everything else, as
    IDMM does; with `filter_bias_and_bn=True` timm's optimizer factory still leaves out biases and norms.

    Args:
        backbone: A timm model; a classifier that it has is taken off.
        head: Takes features (M, `feature_width(backbone)`).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def feature_width(model: nn.Module) -> int:
    """Return the width of what a timm model without classifier gives; a classifier that it has is taken off."""
    backbone: Any = model
    if backbone.num_classes:
        backbone.reset_classifier(0)
    return getattr(backbone, 'head_hidden_size', None) or backbone.num_features


class HeadedTask(TaskHooks, TrainingTask):
    """Base of self-supervised tasks. `trainable_module` is a `module_class`; its backbone is what users get.

    The head lies in the task state of a checkpoint: a resumed run finds it, an exported model is without it.
    """
    predicted: Tuple[str, ...] = ('features',)
    supervised = False
    module_class: Any = HeadedModel

    def __init__(
            self,
            backbone: nn.Module,
            head: nn.Module,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module: Any = self.module_class(backbone, head).to(device=self.device, dtype=self.dtype)

    def prepare_distributed(self, device_ids: Optional[list] = None, **ddp_kwargs: Any) -> 'HeadedTask':
        """Wrap the trainable module in DistributedDataParallel."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(  # type: ignore[override]
            self,
            backend: str = 'inductor',
            mode: Optional[str] = None,
            **compile_kwargs: Any,
    ) -> nn.Module:
        """Compile the trainable module; the backbone that is evaluated and exported shares its weights."""
        self.trainable_module = torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        return self.trainable_module

    def get_eval_model(self, module: Optional[nn.Module] = None, ema: bool = False) -> Optional[nn.Module]:
        """Return the plain backbone: a timm model with `num_classes=0`."""
        headed = self._headed(module, ema)
        return None if headed is None else headed.backbone

    def get_task_state(self, module: Optional[nn.Module] = None, ema: bool = False) -> Dict[str, Any]:
        headed = self._headed(module, ema)
        return {} if headed is None else {'head': headed.head.state_dict()}

    def load_task_state(
            self,
            state: Optional[Dict[str, Any]],
            strict: bool = True,
            module: Optional[nn.Module] = None,
            ema: bool = False,
    ) -> None:
        headed = self._headed(module, ema)
        if state and headed is not None:
            headed.head.load_state_dict(state['head'], strict=strict)

    def _headed(self, module: Optional[nn.Module], ema: bool) -> Any:
        module = self.get_trainable_module(ema=ema) if module is None else module
        return None if module is None else unwrap_model(module)
