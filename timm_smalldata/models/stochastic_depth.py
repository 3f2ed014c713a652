"""Stochastic depth with one rate for all blocks; timm lets it rise from 0 in the first one."""
from torch import nn

_NAMES = ('drop_path', 'drop_path1', 'drop_path2')


def set_constant_drop_path(model: nn.Module, rate: float) -> nn.Module:
    """Give every residual branch the same rate of stochastic depth, as DeiT III does; returns the model.

    timm's linear rule has half of that on average. The weights do not depend on it, so a plain timm model loads them.

    Args:
        model: timm model; it is changed.
        rate: Probability that a sample skips a branch, 0 to 1.

    Raises:
        ValueError: No block of the model has stochastic depth.

    >>> import timm
    >>> model = set_constant_drop_path(timm.create_model('test_vit'), 0.2)
    >>> {block.drop_path1.drop_prob for block in model.blocks}
    {0.2}
    """
    from timm.layers import DropPath
    found = False
    for module in list(model.modules()):
        for name in _NAMES:
            if name in module._modules or (hasattr(module, name) and getattr(module, name) is None):
                setattr(module, name, DropPath(rate))
                found = True
    if not found:
        raise ValueError(f'{type(model).__name__} has no blocks with stochastic depth')
    return model
