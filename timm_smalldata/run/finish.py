"""The end of a run: the chosen weights are exported, what was exported is judged, the report is written."""
import json
import sys
import time
from copy import deepcopy
from typing import Any, Dict, Optional, Tuple

import timm
from torch import nn

from ..config.late_checks import wants_posthoc
from ..data.pixels import PixelRule
from ..engine import checkpoint
from ..engine.evaluate import all_of, eval_model
from ..engine.posthoc import collect, run_posthoc
from ..engine.probe import ProbeJudge
from ..evaluation import LongTailEvaluator, fit_temperature
from ..evaluation.mistakes import ConfidentMistakes
from ..evaluation.ranking import KeepScores, ranking_metrics
from ..hub.export import export_model
from ..models import is_ours
from ..models.cosine import fold_cosine_head, has_cosine_head, mean_feature_norms
from ..report.assemble import FEW_IMAGES, build_report, headlines, write_report
from ..report.mistakes import write_mistakes
from ..report.page import PAGE, write_page
from ..report.table import format_report
from ..utils.console import is_terminal
from .job import Job, Parts
from .mirrored import mirrored_classes, mirrored_line
from .trainer import Trainer


def finish(trainer: Trainer, started: float) -> Dict[str, Any]:
    """Export the chosen weights, judge what was exported, write and print the report.

    Args:
        trainer: After its last epoch.
        started: When the run began, as `time.time()` tells it.
    """
    job, parts, state = trainer.job, trainer.parts, trainer.state
    args, data, say = job.args, job.data, job.say
    seconds = time.time() - started
    if job.world.primary:
        export(trainer)
    job.world.barrier()
    watch, scores = ConfidentMistakes(), KeepScores()
    evaluator, extra = judge_exported(job, parts, watch, scores)
    selected = args.select == 'best' and bool(state.best)
    split = 'test' if data.test is not None else 'val' if data.val is not None else 'none'
    mirrored = mirrored_classes(job, parts, evaluator) if job.world.primary else []
    if mirrored:
        extra['mirrored'] = mirrored
    report = build_report(
        evaluator, data.classes, data.groups, split=split, selected_on='val' if selected else 'none',
        epoch=state.best['epoch'] if selected else trainer.num_epochs - 1, shot_split=args.shot_split, extra=extra)
    if isinstance(parts.judge, ProbeJudge):
        report['loss'], report['collapse'] = None, trainer.collapse
    report['timing'] = dict(seconds=seconds, **trainer.timing())
    if job.world.primary:
        judged = data.test if data.test is not None else data.val
        write_mistakes(job.folder, watch.kept, judged, data.classes.names)
        write_report(job.folder, report, evaluator, data.classes, data.groups)
        write_page(job.folder)
        checkpoint.prune(job.folder, args.keep)
        trainer.trackers.report(report)
    if job.world.primary and not is_terminal(sys.stdout):  # for programs, as timm's train.py ends
        print(f'--result\n{json.dumps(state.results(), indent=4)}', flush=True)
    say('\n' + format_report(report) if split != 'none' else
        'neither a test nor a validation split: nothing was measured.')
    if mirrored:
        say(mirrored_line(mirrored, job.given))
    first = 'import timm_smalldata; ' if is_ours(args.model) else ''  # it registers the architecture
    say(f'\nreport: {job.folder / PAGE}' if split != 'none' else '')
    say(f"model: {job.folder / 'model'}\nload:  {first}timm.create_model('{exported_name(job)}', pretrained=True)")
    return report


def exported_name(job: Job) -> str:
    """Return the name by which timm loads the exported model."""
    return f'local-dir:{job.folder / "model"}'


def export(trainer: Trainer) -> None:
    """Put the weights of the best epoch into the task and export its model, on one process."""
    job, args, best = trainer.job, trainer.args, trainer.state.best
    checkpoint.restore_selected(
        job.folder, trainer.task, best if args.select == 'best' else {}, trainer.num_epochs - 1)
    model, metadata = plain_model(job, trainer.parts, eval_model(trainer.task))
    for line in metadata.get('notes', ()):
        job.say(line)
    export_model(
        model, job.folder / 'model', classes=job.data.classes, data_config=trainer.parts.config,
        metadata=dict(
            metadata, shot_split=args.shot_split, pixels=PixelRule.of(args).to_dict(),
            **calibrate(job, trainer.parts, model)),
        fine_tuned=bool(args.pretrained))


def calibrate(job: Job, parts: Parts, model: nn.Module) -> Dict[str, float]:
    """Return the temperature that makes probabilities fit the validation images, for the model's config.

    It changes no class and no number of the report. Nothing comes back without class scores, with few such images, or
    where all of them are right: then every temperature fits that is small enough.
    """
    val = job.data.val
    loader = job.eval_loader(val, parts.eval_spec, alone=True)
    if loader is None or val is None or len(val) < FEW_IMAGES or isinstance(parts.judge, ProbeJudge):
        return {}
    logits, labels = collect(model.to(job.device), loader)
    return {} if (logits.argmax(1) == labels).all() else dict(temperature=fit_temperature(logits, labels))


def plain_model(job: Job, parts: Parts, model: nn.Module) -> Tuple[nn.Module, Dict[str, Any]]:
    """Return the model as stock timm can hold it, and what was changed for that, for its config and the screen."""
    if not has_cosine_head(model):
        return model, {}
    loader = job.eval_loader(job.data.train, parts.eval_spec, alone=True)
    assert loader is not None
    plain = deepcopy(model).to(job.device)  # an average may lie on the CPU
    norms = mean_feature_norms(plain, (batch.views[0] for batch in loader))
    fold_cosine_head(plain, norms)
    told = ' and '.join(f'{norm:.4g}' for norm in norms)
    note = (
        f'cosine head folded into a plain one: weight = s * W / |W|, bias 0, s = {job.args.head_scale:g} / {told} '
        '(mean length of the training features): the same ranking of classes, nearly the same probabilities')
    return plain, dict(notes=[note])


def judge_exported(
        job: Job, parts: Parts, watch: Optional[ConfidentMistakes] = None, scores: Optional[KeepScores] = None,
) -> Tuple[LongTailEvaluator, Dict[str, Any]]:
    """Judge the exported folder on the test images, or on those of validation where there are no others.

    Returns:
        The evaluator of the chief prediction (without images where there is no such split), and further entries of
        the report.
    """
    args, data = job.args, job.data
    extra: Dict[str, Any] = dict(
        select=args.select, eval_metric=args.eval_metric, duplicates_across_splits=data.duplicates)
    loader = job.eval_loader(data.test if data.test is not None else data.val, parts.eval_spec)
    if loader is None:
        evaluator = parts.task.create_evaluator()
        evaluator.compute()
        return evaluator, extra
    model = timm.create_model(exported_name(job), pretrained=True).to(job.device).float()
    evaluators = parts.judge.judge(loader, model, final=True, watch=all_of(watch, scores))[1]
    if watch is not None:
        watch.add(m for kept in job.world.gather(watch.kept) for m in kept)
    if scores is not None:
        shares = job.world.gather((scores.kept, scores.parts))
        if sum(kept for kept, _ in shares) <= scores.most:
            extra.update(ranking_metrics([part for _, share in shares for part in share], data.groups))
    if len(evaluators) > 1:
        extra['predictions'] = headlines(evaluators)
    extra.update(parts.judge.describe())
    if wants_posthoc(args):
        val_loader = job.eval_loader(data.val, parts.eval_spec, alone=True)
        extra['posthoc'] = run_posthoc(
            parts.task, model, loader, val_loader, data.classes.counts, job.world, posthoc_tau=args.posthoc_tau,
            tau_norm=args.tau_norm, temperature=args.temperature)
    return next(iter(evaluators.values())), extra
