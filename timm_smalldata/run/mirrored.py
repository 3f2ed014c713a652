"""What a run that trained with mirror images says at its end, where classes are mirror images of each other."""
import shlex
from typing import Any, Dict, List, Mapping, Sequence

from ..config.flags import BY_DEST, given_words
from ..data.mirror import mirror_classes
from ..evaluation import LongTailEvaluator
from ..utils.command import command
from .job import Job, Parts


def mirror_share(parts: Parts) -> float:
    """Return the share of training views that are mirror images."""
    return max(spec.crop.hflip for spec in parts.loader.specs)


def mirrored_classes(job: Job, parts: Parts, evaluator: LongTailEvaluator) -> List[Dict[str, Any]]:
    """Return pairs of classes that mirror images have made hard to tell apart, for the report; nothing without any."""
    judged = job.data.test if job.data.test is not None else job.data.val
    confusion = evaluator.state().get('confusion')
    if judged is None or confusion is None or not mirror_share(parts):
        return []
    names = job.data.classes.names
    return [dict(classes=[names[first], names[second]], confused=wrong, images=images) for first, second, wrong, images
            in mirror_classes(confusion.numpy(), job.data.train, judged)]


def mirrored_line(pairs: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> str:
    """Return the line for the screen, with the command that trains without mirror images.

    Args:
        pairs: From `mirrored_classes`, at least one.
        given: What the user gave.
    """
    first, second = pairs[0]['classes']
    more = f' (and {len(pairs) - 1} more pairs)' if len(pairs) > 1 else ''
    kept = {dest: value for dest, value in given.items()
            if dest in BY_DEST and BY_DEST[dest].kept and dest not in ('experiment', 'hflip')}
    again = shlex.join([*command(), *given_words({**kept, 'hflip': 0.0})])
    return (f'{pairs[0]["confused"]} of {pairs[0]["images"]} images of {first} and {second} are taken for the other '
            f'one, and each looks like a mirror image of the other{more}; to train without mirror images: {again}')
