"""Tasks whose trainable module holds the timm model that users get, and parts that only the training needs."""
from typing import Any, Dict, Optional

import torch
from timm.utils import unwrap_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .base import TaskHooks


class WrappedModelTask(TaskHooks):
    """What timm asks of a task, for a `trainable_module` that holds the user's model as one of its attributes.

    It stands before timm's class of the task. The part that only the training needs (a head, a
    decoder) lies in the task state of a checkpoint: a resumed run finds it, an exported model is without it.

    Attributes:
        trainable_module: All that is trained, in one forward; perhaps inside of wrappers (compiled, distributed).
        model_name: The attribute of the trainable module that is the timm model.
        part_name: Its attribute that lies in the task state, under the same key; empty for none.
    """
    trainable_module: Any
    model_name = 'backbone'
    part_name = 'head'

    def unwrapped(self, module: Optional[nn.Module] = None, ema: bool = False) -> Any:
        """Return the trainable module, or its average, without wrappers; None where there is no average."""
        module = self.get_trainable_module(ema=ema) if module is None else module
        return None if module is None else unwrap_model(module)

    def prepare_distributed(self, device_ids: Optional[list] = None, **ddp_kwargs: Any) -> Any:
        """Wrap the trainable module in DistributedDataParallel; returns the task."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(  # type: ignore[override]  # torch's `Module.compile` returns nothing
            self,
            backend: str = 'inductor',
            mode: Optional[str] = None,
            **compile_kwargs: Any,
    ) -> Optional[nn.Module]:
        """Compile the trainable module; returns the plain model, which shares its weights."""
        self.trainable_module = torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        return self.get_eval_model()

    def get_eval_model(self, module: Optional[nn.Module] = None, ema: bool = False) -> Any:
        """Return the plain timm model; None where there is no average."""
        found = self.unwrapped(module, ema)
        return None if found is None else getattr(found, self.model_name)

    def get_task_state(self, module: Optional[nn.Module] = None, ema: bool = False) -> Dict[str, Any]:
        found = self.unwrapped(module, ema)
        if found is None or not self.part_name:
            return {}
        return {self.part_name: getattr(found, self.part_name).state_dict()}

    def load_task_state(
            self,
            state: Optional[Dict[str, Any]],
            strict: bool = True,
            module: Optional[nn.Module] = None,
            ema: bool = False,
    ) -> None:
        found = self.unwrapped(module, ema)
        if state and found is not None and self.part_name:
            getattr(found, self.part_name).load_state_dict(state[self.part_name], strict=strict)
