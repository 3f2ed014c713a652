"""What a model is worth: recall by class and by group, calibration, and how sure one can be of either."""
from .calibration import calibration_error
from .correction import adjust_logits, fit_temperature, tau_normalise
from .evaluator import LongTailEvaluator
from .intervals import PairedInterval, balanced_accuracy_interval, group_interval, paired_interval, wilson_interval
from .knn import knn_predict
from .linear_probe import linear_probe
from .retrieval import class_means, retrieval_scores
from .shot_groups import auto_shot_split, parse_shot_split, shot_groups

__all__ = [
    'LongTailEvaluator',
    'PairedInterval',
    'adjust_logits',
    'auto_shot_split',
    'balanced_accuracy_interval',
    'calibration_error',
    'class_means',
    'fit_temperature',
    'group_interval',
    'knn_predict',
    'linear_probe',
    'paired_interval',
    'parse_shot_split',
    'retrieval_scores',
    'shot_groups',
    'tau_normalise',
    'wilson_interval',
]
