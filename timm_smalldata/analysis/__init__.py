"""What a vision transformer does inside: attention distances and maps, rank of features, class and distillation token."""
from .attention_distance import attention_distance
from .attention_maps import class_attention, mask_overlap, mass_mask, upsample
from .capture import Captured, capture, patch_grid
from .feature_rank import feature_rank
from .tokens import distilled_logits, is_distilled, token_divergence

__all__ = [
    'Captured',
    'attention_distance',
    'capture',
    'class_attention',
    'distilled_logits',
    'feature_rank',
    'is_distilled',
    'mask_overlap',
    'mass_mask',
    'patch_grid',
    'token_divergence',
    'upsample',
]
