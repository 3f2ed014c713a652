"""Losses for few and unevenly many images: of classifiers, `criterion(logits (N, C), target)`, and of features."""
from .balanced_bce import BalancedBCE
from .balanced_softmax import BalancedSoftmax, LogitAdjusted
from .class_balanced import ClassBalancedCrossEntropy, ClassBalancedFocalLoss, effective_number_weights
from .contrastive import nt_xent_loss, supervised_contrastive_loss
from .cross_entropy import CrossEntropy, FocalLoss
from .deferred import DeferredReweighting
from .dino import DINOLoss
from .distillation import hard_distillation_loss
from .factory import LOSS_NAMES, LOSSES, LossRow, create_loss, register_loss
from .instance_discrimination import instance_discrimination_loss
from .label_aware_smoothing import LabelAwareSmoothing
from .lade import LADE
from .ldam import LDAM
from .masked_pixel import masked_pixel_loss
from .paco import ParametricContrastiveLoss
from .regularised import Regularised, Rescaled
from .vector_scaling import VectorScaling

__all__ = [
    'LADE',
    'LDAM',
    'LOSSES',
    'LOSS_NAMES',
    'BalancedBCE',
    'BalancedSoftmax',
    'ClassBalancedCrossEntropy',
    'ClassBalancedFocalLoss',
    'CrossEntropy',
    'DINOLoss',
    'DeferredReweighting',
    'FocalLoss',
    'LabelAwareSmoothing',
    'LogitAdjusted',
    'LossRow',
    'ParametricContrastiveLoss',
    'Regularised',
    'Rescaled',
    'VectorScaling',
    'create_loss',
    'effective_number_weights',
    'hard_distillation_loss',
    'instance_discrimination_loss',
    'masked_pixel_loss',
    'nt_xent_loss',
    'register_loss',
    'supervised_contrastive_loss',
]
