"""What a model is worth: recall by class and by group, calibration, and how sure one can be of either."""
from .calibration import calibration_error
from .confident import class_thresholds, wrong_labels
from .copies import Whitening, copy_descriptor, copy_precision
from .correction import adjust_logits, fit_temperature, tau_normalise
from .evaluator import LongTailEvaluator
from .intervals import PairedInterval, balanced_accuracy_interval, group_interval, paired_interval, wilson_interval
from .knn import knn_predict
from .landmarks import landmark_scores
from .linear_evaluation import DINO_LINEAR, MAE_LINEAR, LinearEvaluation, LinearProtocol
from .linear_probe import linear_probe
from .predicted_distribution import predicted_distribution
from .propagation import LabelPropagation, label_map
from .retrieval import class_means, retrieval_scores
from .shot_groups import auto_shot_split, parse_shot_split, shot_groups
from .video_masks import contour_accuracy, region_similarity

__all__ = [
    'DINO_LINEAR',
    'LabelPropagation',
    'LinearEvaluation',
    'LinearProtocol',
    'LongTailEvaluator',
    'MAE_LINEAR',
    'PairedInterval',
    'Whitening',
    'adjust_logits',
    'auto_shot_split',
    'balanced_accuracy_interval',
    'calibration_error',
    'class_means',
    'class_thresholds',
    'contour_accuracy',
    'copy_descriptor',
    'copy_precision',
    'fit_temperature',
    'group_interval',
    'knn_predict',
    'label_map',
    'landmark_scores',
    'linear_probe',
    'paired_interval',
    'parse_shot_split',
    'predicted_distribution',
    'region_similarity',
    'retrieval_scores',
    'shot_groups',
    'tau_normalise',
    'wilson_interval',
    'wrong_labels',
]
