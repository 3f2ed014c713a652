"""Images by role, long tails, samplers, views and loaders."""
from .classes import ClassInfo, class_counts, dataset_targets
from .loader import Batch, create_loader
from .long_tail import long_tailed_counts, long_tailed_indices
from .replace_sampler import replace_sampler
from .sampler import (
    ClassBalancedSampler,
    DeferredSampler,
    Draw,
    InstanceSampler,
    ProgressiveSampler,
    RepeatedSampler,
    create_sampler,
)
from .source import ArraySource, ImageSource, Subset
from .views import SimpleRandomCrop, ViewSpec, three_augment

__all__ = [
    'ArraySource',
    'Batch',
    'ClassBalancedSampler',
    'ClassInfo',
    'DeferredSampler',
    'Draw',
    'ImageSource',
    'InstanceSampler',
    'ProgressiveSampler',
    'RepeatedSampler',
    'SimpleRandomCrop',
    'Subset',
    'ViewSpec',
    'class_counts',
    'create_loader',
    'create_sampler',
    'dataset_targets',
    'long_tailed_counts',
    'long_tailed_indices',
    'replace_sampler',
    'three_augment',
]
