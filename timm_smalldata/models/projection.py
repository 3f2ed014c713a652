"""The head of DINO: from features to prototypes. It is not part of the model that a user gets."""
from typing import Any, List

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class ProjectionHead(nn.Module):
    """MLP, L2-normalisation, weight-normalised linear layer (Caron et al., ICCV 2021, arXiv:2104.14294, appendix C).

    Linear layers with GELU between them down to a bottleneck of unit length, then one direction per output; with the
    gain held at 1 (`norm_last_layer`) every output is a cosine.

    Args:
        in_features: Width of the features.
        out_dim: Outputs ("prototypes") K.
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Width before the last layer.
        num_layers: Linear layers of the MLP.
        use_bn: Batch norm before each GELU.
        norm_last_layer: Hold the gain of the last layer at 1; otherwise it is trained.

    >>> head = ProjectionHead(192, out_dim=4096)
    >>> head(torch.randn(2, 192)).abs().max() <= 1
    tensor(True)
    """

    def __init__(
            self,
            in_features: int,
            out_dim: int,
            hidden_dim: int = 2048,
            bottleneck_dim: int = 256,
            num_layers: int = 3,
            use_bn: bool = False,
            norm_last_layer: bool = True,
    ):
        super().__init__()
        widths = [in_features, *[hidden_dim] * (num_layers - 1), bottleneck_dim]
        layers: List[nn.Module] = []
        for width, next_width in zip(widths[:-2], widths[1:-1]):
            layers += [nn.Linear(width, next_width), *([nn.BatchNorm1d(next_width)] if use_bn else []), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        # the form of weight norm that can be copied: original0 is the gain, original1 the direction
        self.last_layer: Any = weight_norm(nn.Linear(bottleneck_dim, out_dim, bias=False))
        gain = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(gain)
        gain.requires_grad_(not norm_last_layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (M, out_dim) for features (M, in_features)."""
        x = self.mlp(x)
        return self.last_layer(F.normalize(x.float(), dim=-1).to(x.dtype))  # squares overflow in float16
