"""What a model is worth: recall by class and by group, calibration, and how sure one can be of either."""
from .calibration import calibration_error
from .intervals import PairedInterval, balanced_accuracy_interval, group_interval, paired_interval, wilson_interval
from .long_tail import LongTailEvaluator
from .shot_groups import parse_shot_split, shot_groups

__all__ = [
    'LongTailEvaluator',
    'PairedInterval',
    'balanced_accuracy_interval',
    'calibration_error',
    'group_interval',
    'paired_interval',
    'parse_shot_split',
    'shot_groups',
    'wilson_interval',
]
