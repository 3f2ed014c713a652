"""Label-distribution-aware margins: the fewer images a class has, the wider its margin."""
import math
from typing import Optional

import torch
import torch.nn.functional as F

from .base import PerClass, WeightedLoss, as_counts, log_softmax_pair


class LDAM(WeightedLoss):
    """LDAM loss (Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413).

    `l_c = CE(scale * (x - onehot(c) * m_c), c)` with `m_c = n_c^(-1/4) * max_margin / max_j n_j^(-1/4)`. The logits
    must be cosines: normalised features times normalised class vectors, without bias.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        max_margin: Margin of the rarest class, in units of cosine.
        scale: Factor that the cosines are multiplied with.
        class_weight: Weights (C,); with them the loss is `sum_n sum_c t w l / sum_n sum_c t w`.

    Raises:
        ValueError: A negative margin, or a scale that is not positive.

    >>> LDAM([625, 1]).margin
    tensor([0.1000, 0.5000])
    """
    margin: torch.Tensor

    def __init__(
            self,
            class_counts: PerClass,
            smoothing: float = 0.,
            max_margin: float = 0.5,
            scale: float = 30.,
            class_weight: Optional[PerClass] = None,
    ):
        super().__init__(class_counts, smoothing, class_weight)
        if not (0 <= max_margin < math.inf and 0 < scale < math.inf):
            raise ValueError(f'max_margin must be at least 0 and scale above 0, got {max_margin} and {scale}.')
        self.scale = scale
        margin = as_counts(class_counts) ** -0.25
        self.register_buffer('margin', (margin * max_margin / margin.max()).float())

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        # The margin moves the label's own logit only, so it moves the log odds log(p / (1 - p)) by scale * m_c.
        log_p, log_not_p = log_softmax_pair(self.scale * x)
        return F.softplus(log_not_p - log_p + self.scale * self.margin)
