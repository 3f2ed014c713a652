"""`timm-smalldata doctor DATA --deep`: labels that models contradict which were not trained on the image.

The models are those of short runs of the train command, one for each fold, or of finished runs that the user names. An
image is judged by all of them whose training images it is not among.
"""
import io
import shlex
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from ..build.eval_sources import names_by_role
from ..build.predict import Predictor, load
from ..config.auto import Facts, time_budget
from ..config.flags import BY_DEST, given_words
from ..config.length import seconds
from ..config.plan import plan
from ..data.findings import Finding, finding_of
from ..data.source import ImageSource
from ..data.survey import Survey, raw_of
from ..errors import UserError
from ..evaluation import wrong_labels
from ..utils.console import Voice, duration
from ..utils.device import resolve_device
from ..utils.model_folder import find_model
from ..utils.text import clean

KIND, CHUNK = 'likely wrong label', 256
Place = Tuple[ImageSource, int]


def train_folds(
        given: Dict[str, Any], folds: int, words: List[str], images: int, output: Path, say: Voice) -> List[Path]:
    """Train one model for each fold; the same folder again continues, and skips what is finished.

    Args:
        given: The flags of the data.
        folds: How many parts the training images are divided into; each model is trained without one of them.
        words: More flags of the train command; without a length among them all folds together take as long as one
            training usually does.
        images: How many there are.
        output: Where the runs go.
        say: Prints.

    Returns:
        The run folders.

    Raises:
        UserError: A flag is wrong, or a training ends with an error.
    """
    last = plan(words)[-1]
    taken = next((dest for stage in plan(words) for dest in stage.given if dest in given or dest in (
        'fold', 'output', 'experiment', 'resume', 'select', 'val_fraction', 'test_fraction', 'split_file')), None)
    if taken is not None:
        raise UserError(f'{BY_DEST[taken].word} is set by the doctor itself: leave it out after --.')
    if not any(dest in last.given for dest in ('epochs', 'time_budget', 'recipe')):
        device = resolve_device(last.settings.get('device'), None).type
        each = seconds(time_budget(Facts(images, device=device))) / folds
        words = [*words, '--time-budget', f'{each:.0f}s']
        say(f'training {folds} models, each without a part of the images, {duration(each)} each '
            f'(how: -- FLAGS of the train command)')
    train, runs = import_module('train_smalldata'), []
    for number in range(1, folds + 1):
        name = f'fold-{number}-of-{folds}'
        argv = [*given_words(given), *words, '--fold', f'{number}/{folds}', '--select', 'last', '--val-fraction', '0',
                '--on-bad-image', 'skip', '--allow-missing-classes', '--output', str(output), '--experiment', name,
                '--resume', 'auto']
        told = io.StringIO()
        try:
            with redirect_stdout(told), redirect_stderr(told):
                reports = train.run(argv, {})
        except UserError as error:
            raise UserError(f'fold {number} of {folds}: {error} (train flags: {shlex.join(argv)})') from error
        runs.append(output / name)
        if reports and reports[-1].get('top1') is not None:
            say(f'fold {number} of {folds}: top1 {reports[-1]["top1"]:.1f} of the {reports[-1]["split"]} images')
    return runs


def judge_labels(
        runs: Sequence[Path], seen: Survey, places: Sequence[Place], device: str, say: Voice,
) -> Tuple[List[Finding], Dict[str, Any]]:
    """Return the labels that are probably wrong, from the surest on, and what they were judged by.

    Raises:
        UserError: A folder holds no finished run, or one that was trained on other images.
    """
    classes = sorted(set(seen.labels))
    sums, votes = np.zeros((len(seen), len(classes)), dtype=np.float32), np.zeros(len(seen), dtype=np.int64)
    bar = say.bar(len(seen), 'judging images')
    for run in runs:
        _add(run, seen, places, classes, load(find_model(run), device), sums, votes)
        if bar is not None:
            bar.update(len(seen) // len(runs))
    judged = np.flatnonzero(votes)
    said = sums[judged] / np.maximum(sums[judged].sum(axis=1, keepdims=True), 1e-9)
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[seen.labels[i]] for i in judged], dtype=np.int64)
    found = []
    for wrong in wrong_labels(said, labels):
        i = int(judged[wrong.place])
        own, other = said[wrong.place, [wrong.label, wrong.likely]]
        found.append(finding_of(seen, KIND, f'{seen.names[i]}: {classes[wrong.label]} ({own:.0%})? '
                                            f'{classes[wrong.likely]} ({other:.0%})', [i]))
    right = float((said.argmax(axis=1) == labels).mean()) if len(judged) else 0.0
    return found, dict(models=len(runs), judged=len(judged), not_judged=len(seen) - len(judged),
                       top1=round(100 * right, 2), likely_wrong=len(found))


def _add(
        run: Path, seen: Survey, places: Sequence[Place], classes: List[str], predictor: Predictor,
        sums: np.ndarray, votes: np.ndarray,
) -> None:
    """Add what one run's model says of the images that it was not trained on."""
    folder = find_model(run).parent
    if not (folder / 'split.json').is_file():
        raise UserError(f'{run}: there is no split.json beside its model, so its training images are not known.')
    trained_on = set(names_by_role(folder).get('train', ()))
    names = [clean(name) for name in seen.names]
    if trained_on.isdisjoint(names):
        raise UserError(f'{run} was trained on other images than these, or they had other paths: name the data as they '
                        'were named for it.')
    column = {clean(name): place for place, name in enumerate(classes)}
    known = {clean(name) for name in predictor.names}
    wanted = [i for i, name in enumerate(names)
              if name not in trained_on and i not in seen.bad and clean(seen.labels[i]) in known]
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start:start + CHUNK]
        for i, said in zip(chunk, predictor.predict([raw_of(*places[i]) for i in chunk], len(predictor.names))):
            for name, probability in said.top:
                if clean(name) in column:
                    sums[i, column[clean(name)]] += probability
            votes[i] += said.error is None


def words_on(facts: Dict[str, Any]) -> str:
    """Return what the labels were judged by, in words."""
    rest = f', {facts["not_judged"]} by none' if facts['not_judged'] else ''
    return (f'{facts["likely_wrong"]} labels are likely wrong: {facts["judged"]} images were judged by models that '
            f'were not trained on them{rest}; {facts["top1"]:.1f} % of them got their label (confident learning, '
            'arXiv:1911.00068)')


def check_deep(args: Namespace) -> None:
    """Refuse words that contradict each other."""
    if args.runs and (args.folds or args.output or args.train):
        raise UserError('--runs reads finished runs, so nothing is trained: leave --folds, --output and flags after -- '
                        'out.')
    if not (args.deep or args.runs) and (args.folds or args.output or args.train):
        raise UserError('--folds, --output and flags after -- go with --deep.')
    if args.folds is not None and args.folds < 2:
        raise UserError(f'--folds {args.folds}: 2 or more are needed.')
