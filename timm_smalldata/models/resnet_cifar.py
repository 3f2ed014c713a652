"""ResNets for small images (He et al., CVPR 2016, https://arxiv.org/abs/1512.03385, sec. 4.2)."""
from typing import Any, Dict, Optional, Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from .cosine import CosineClassifier

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; where the size halves, the shortcut drops every second pixel and pads channels by zeros."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, drop_path: float = 0.):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_chs)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_chs)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.stride, self.pad = stride, (out_chs - in_chs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.stride > 1:
            shortcut = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.pad, self.pad))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.drop_path(self.bn2(self.conv2(x))) + shortcut)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels at full, half and quarter size.

    Args:
        depth: 6n + 2 layers.
        num_classes: Classes; 0 gives features (N, 64).
        in_chans: Channels of the image.
        global_pool: timm's name of the pooling, or '' for a map.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth: rate of the last block, rising in equal steps from 0 at the first.
        head: 'linear' or 'cosine' (kept as it is on export: the model opens where this package is imported).
        head_scale: Scale of the cosine head.
    """

    def __init__(
            self,
            depth: int = 32,
            num_classes: int = 10,
            in_chans: int = 3,
            global_pool: str = 'avg',
            drop_rate: float = 0.,
            drop_path_rate: float = 0.,
            head: str = 'linear',
            head_scale: float = 30.,
    ):
        super().__init__()
        if (depth - 2) % 6:
            raise ValueError(f'depth must be 6n + 2, got {depth}.')
        if head not in ('linear', 'cosine'):
            raise ValueError(f"head must be 'linear' or 'cosine', got {head!r}.")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.drop_rate, self.grad_checkpointing = drop_rate, False
        self.num_features = self.head_hidden_size = 64
        self.head, self.head_scale = head, head_scale
        self.own_cosine_head = head == 'cosine'
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        rates = [drop_path_rate * i / max(3 * blocks - 1, 1) for i in range(3 * blocks)]
        self.layer1 = self._stage(16, 16, 1, rates[:blocks])
        self.layer2 = self._stage(16, 32, 2, rates[blocks:2 * blocks])
        self.layer3 = self._stage(32, 64, 2, rates[2 * blocks:])
        self.feature_info = [
            dict(num_chs=chs, reduction=2 ** i, module=f'layer{i + 1}') for i, chs in enumerate((16, 32, 64))]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self._create_head(num_classes, global_pool)

    @staticmethod
    def _stage(in_chs: int, out_chs: int, stride: int, rates: Sequence[float]) -> nn.Sequential:
        return nn.Sequential(*(
            CifarBlock(out_chs if i else in_chs, out_chs, 1 if i else stride, rate) for i, rate in enumerate(rates)))

    def _create_head(self, num_classes: int, global_pool: str) -> None:
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        if num_classes and self.head == 'cosine':
            self.fc = CosineClassifier(self.num_features, num_classes, self.head_scale)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        return dict(stem=r'^conv1|bn1', blocks=r'^layer(\d+)' if coarse else r'^layer(\d+)\.(\d+)')

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        self.num_classes = num_classes
        self._create_head(num_classes, self.global_pool.pool_type if global_pool is None else global_pool)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            if self.grad_checkpointing and not torch.jit.is_scripting():
                from torch.utils.checkpoint import checkpoint_sequential
                x = checkpoint_sequential(stage, len(stage), x, use_reentrant=False)
            else:
                x = stage(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.global_pool(x)
        if self.drop_rate:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def _cfg(**kwargs: Any) -> Dict[str, Any]:
    return dict(
        url='', num_classes=10, input_size=(3, 32, 32), pool_size=(8, 8), crop_pct=1.0, interpolation='bicubic',
        mean=CIFAR_MEAN, std=CIFAR_STD, first_conv='conv1', classifier='fc', **kwargs)


default_cfgs = generate_default_cfgs({
    'resnet20_cifar.untrained': _cfg(),
    'resnet32_cifar.untrained': _cfg(),
    'resnet44_cifar.untrained': _cfg(),
    'resnet56_cifar.untrained': _cfg(),
})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, variant, pretrained, **kwargs)


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """20 layers, 0.27 M parameters."""
    return _create('resnet20_cifar', pretrained, **dict(dict(depth=20), **kwargs))


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """32 layers, 0.46 M parameters: the teacher of DeiT-LT on CIFAR."""
    return _create('resnet32_cifar', pretrained, **dict(dict(depth=32), **kwargs))


@register_model
def resnet44_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """44 layers, 0.66 M parameters."""
    return _create('resnet44_cifar', pretrained, **dict(dict(depth=44), **kwargs))


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """56 layers, 0.85 M parameters."""
    return _create('resnet56_cifar', pretrained, **dict(dict(depth=56), **kwargs))
