"""What a vision transformer does inside: where it attends to and how far, rank of its features, its two tokens."""
from .attention_distance import attention_distance
from .attention_maps import chance_overlap, class_attention, mask_overlap, mass_mask, upsample
from .capture import Captured, capture, patch_grid
from .feature_rank import feature_rank
from .object_overlap import object_overlap
from .tokens import distilled_logits, is_distilled, token_divergence

__all__ = [
    'Captured',
    'attention_distance',
    'capture',
    'chance_overlap',
    'class_attention',
    'distilled_logits',
    'feature_rank',
    'is_distilled',
    'mask_overlap',
    'mass_mask',
    'object_overlap',
    'patch_grid',
    'token_divergence',
    'upsample',
]
