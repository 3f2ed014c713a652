"""How fast this machine trains a model on given images, and where the time goes.

    timm-smalldata benchmark photos --model vit_tiny_patch16_224 --img-size 64 [--against-timm PATH/train.py]

Flags are those of the train command and those below. Reading, views, the model alone (a step; a forward pass) and all
together are measured in turn, five times each; the median counts, and the spread is shown. Nothing is trained.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import timm

from ..config.length import seconds
from ..config.parser import Parser
from ..config.plan import finish_stage, plan
from ..errors import UserError
from ..models import is_ours
from ..run.benchmark import benchmark, conditions
from ..run.choose import settle
from ..run.folder import environment
from ..run.job import Job, create_job
from ..utils.command import as_typed, typed
from ..utils.console import Voice, answer, print_safely
from ..utils.device import resolve_device
from ..utils.distributed import World
from ..utils.files import write_json_atomic

ROWS = (
    ('decode', 'open and decode a file, one thread'), ('views', 'views of decoded images, as trained on'),
    ('step', 'the model alone: a step of training'), ('end_to_end', 'a step with its views'),
    ('forward', 'the model alone: forward'), ('evaluation', 'forward with reading'))
STEPS = 20  # of the other script


def main(argv: Optional[List[str]] = None) -> int:
    """Run the benchmark command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> Dict[str, Any]:
    """Measure and print; returns what was measured."""
    args, train = parse(argv)
    say = Voice()
    with tempfile.TemporaryDirectory(prefix='timm-smalldata-') as place:
        result, job = measured(args, train, Path(place), say)
        if args.against_timm:
            result['against_timm'] = against_timm(args.against_timm, job, Path(place), say)
            result['ratios']['end to end / timm'] = (
                result['images_per_second']['end_to_end']['median'] / result['against_timm']['images_per_second'])
    if args.result:
        write_json_atomic(args.result, result)
    print_safely(json.dumps(result, indent=2) if args.json else table(result))
    return result


def parse(argv: List[str]) -> Tuple[Namespace, List[str]]:
    """Return the flags of this command, and the rest, which are the train command's."""
    parser = Parser(
        typed('benchmark'), usage='%(prog)s [DATA] [flags] [train flags]', description=as_typed(__doc__),
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--measure', default='10s', metavar='TIME', help='how long each thing is measured [10s]')
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument('--result', type=Path, metavar='FILE', help='write the JSON to this file as well')
    parser.add_argument(
        '--against-timm', type=Path, metavar='FILE',
        help="timm's train.py: run it with the same images, model, batch and augmentation, and print the ratio")
    args, train = parser.parse_known_args(argv)
    try:
        args.measure = seconds(args.measure)
    except UserError as error:
        raise UserError(str(error).replace('--time-budget', '--measure')) from error
    if args.against_timm and not args.against_timm.is_file():
        raise UserError(f"--against-timm {args.against_timm}: no such file; timm's train.py lies in its repository.")
    return args, [word for word in train if word != '--']


def measured(args: Namespace, train: List[str], place: Path, say: Voice) -> Tuple[Dict[str, Any], Job]:
    """Build what would be trained, and measure it."""
    stages = plan(train)
    if len(stages) > 1:
        raise UserError('benchmark measures one stage: leave --recipe out and name the flags of the stage.')
    stage, world = stages[0], World()
    finish_stage(stage)
    for dest, value in (('output', str(place)), ('experiment', 'benchmark')):
        stage.settings.resolve(dest, value)
    device = resolve_device(stage.settings.get('device'))
    stage.settings.resolve('device', device.type)
    job = create_job(stage, place / 'benchmark', world, device, say)
    job.folder.mkdir(parents=True, exist_ok=True)
    job, parts, _ = settle(job, time.time())
    say(f'measuring {job.args.model} for about {(len(ROWS) * args.measure):.0f} s')
    found = benchmark(job, parts, args.measure)
    return dict(conditions=conditions(job.args, job), machine=environment(device, world), **found), job


def table(result: Dict[str, Any]) -> str:
    """Return the result as lines."""
    facts = result['conditions']
    lines = [f"{facts['model']}, {facts['img_size']} px, batch {facts['batch_size']}, on {facts['device']}, "
             f"{facts['threads']} threads, {facts['workers']} workers, "
             f"{'bfloat16' if facts['amp'] else 'float32'}", '',
             f'{"images a second":<40}{"median":>10}   lowest, highest']
    for name, text in ROWS:
        found = result['images_per_second'][name]
        views = f' ({result["views"]} each)' if name == 'views' and result['views'] > 1 else ''
        lines.append(f'{text + views:<40}{found["median"]:>10,.0f}   {found["lowest"]:,.0f}, {found["highest"]:,.0f}')
    lines.append('')
    lines += [f'{name:<40}{value:>10.2f}' for name, value in result['ratios'].items()]
    if result['memory']:
        lines.append(f'{"memory at the peak, GiB":<40}{result["memory"] / 2 ** 30:>10.1f}')
    return '\n'.join(lines)


def against_timm(script: Path, job: Job, place: Path, say: Voice) -> Dict[str, Any]:
    """Run timm's script on the same images for some steps; returns its images a second and its command."""
    args, folder = job.args, Path(str(job.args.data_dir or ''))
    if args.task != 'classification':
        raise UserError(f'--against-timm trains a classifier, and --task {args.task} is none: leave one of them out.')
    if args.dataset or not folder.is_dir():
        raise UserError('--against-timm reads a folder of images, as timm does: name one.')
    judged = next((name for name in ('val', 'validation', 'test') if (folder / name).is_dir()), 'train')
    words = [
        '--data-dir', folder, '--train-split', 'train', '--val-split', judged, '--model', args.model,
        '--img-size', args.img_size, '-b', args.batch_size, '--opt', args.opt, '--lr', args.lr,
        '--num-classes', len(job.data.classes.names), '--workers', args.workers or 0, '--device', job.device.type,
        '--smoothing', args.smoothing or 0, '--mixup', args.mixup or 0, '--cutmix', args.cutmix or 0,
        '--color-jitter', (args.color_jitter or [0])[0], '--log-interval', 1, '--epochs', 100, '--output', place,
        '--no-prefetcher' if job.device.type == 'cpu' else '--pin-mem']
    words += ['--aa', args.aa] if args.aa else []
    words += ['--amp', '--amp-dtype', args.amp_dtype] if args.amp else []
    words += ['--device-modules', 'timm_smalldata'] if is_ours(args.model) else []
    config = timm.get_pretrained_cfg(args.model)
    fixed_size = config is not None and config.fixed_input_size
    kwargs = dict(args.model_kwargs, **(dict(img_size=args.img_size) if fixed_size else {}))
    words += ['--model-kwargs', *(f'{name}={value}' for name, value in kwargs.items())] if kwargs else []
    command = [sys.executable, str(script), *map(str, words)]
    say(f'{" ".join(command)}')
    env = dict(os.environ, TIMM_FUSED_ATTN='1' if args.fused_attn else '0')
    rates: List[float] = []
    said: List[str] = []
    with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            rate = re.search(r'Time: .*?([\d.]+)/s', line)
            if rate:
                rates.append(float(rate[1]))
            if len(rates) > STEPS:
                process.terminate()
                break
    if not rates[1:]:
        raise UserError(f'--against-timm {script}: it ended without a step: {" ".join(said[-2:])}')
    return dict(images_per_second=statistics.median(rates[1:]), command=' '.join(command[1:]))
