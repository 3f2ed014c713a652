#!/usr/bin/env python3
"""How fast this machine trains, beside the model alone and beside timm's script, as ratios within one run.

    python benchmarks/speed.py flowers102_96 --against-timm PATH/train.py [--gpu gpu-results/gpu.json] [--out FILE]

DATA holds `train/CLASS/*`. Writes a Markdown table with what was wanted and what was found (FILE: `speed.md` beside
this program); where less was found than wanted, the rates that show why stand beside it. Rows of a GPU come from
`benchmarks/gpu.sh`, or are marked as missing. `--only WORD` takes the rows whose name holds it, `--measure 2s` is how
long each thing is measured. Run it on a machine that does nothing else.
"""
import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import torch

from timm_smalldata.cli import benchmark
from timm_smalldata.utils.device import computes_bfloat16

ROOT = Path(__file__).resolve().parents[1]
TI = [
    '--model', 'vit_tiny_patch16_224', '--epochs', '100', '--opt', 'adamw', '--aug', 'three-augment', '--mixup', '0.8']
MISSING = 'missing: not run on a GPU yet'


class Line(NamedTuple):
    """A line of the table; `found` is None where nothing was measured, and `note` says why."""
    on: str
    measure: str
    target: float
    found: Optional[float]
    note: str = ''


class Speed:
    """Measures the rows.

    Args:
        data: Folder of images.
        script: timm's train.py, or None.
        seconds: How long each thing is measured, as the verb `benchmark` takes it.
    """

    def __init__(self, data: Path, script: Optional[Path], seconds: str = '10s'):
        self.data, self.script, self.seconds = data, script, seconds

    def measured(self, flags: List[str], timm: bool = False) -> Dict[str, Any]:
        """Return what the verb `benchmark` finds."""
        words = [str(self.data), *flags, '--device', 'cpu', '--measure', self.seconds]
        return benchmark.run([*words, '--against-timm', str(self.script)] if timm else words)

    def large(self) -> Iterator[Line]:
        """ViT-Ti/8 at 64 px, beside itself and beside timm's script."""
        on = 'ViT-Ti/8, 64 px, 3-Augment, mixup'
        flags = [*TI, '--model-kwargs', 'patch_size=8', '--img-size', '64', '-b', '128']
        ours = self.measured(flags)
        yield ratio(on, 'end to end / model alone', 0.95, ours, 'end to end / step')
        yield ratio(on, 'evaluation / forward alone', 0.95, ours, 'evaluation / forward')
        if self.script is None:
            yield Line(on, "ours / timm's script", 1.3, None, 'missing: --against-timm PATH/train.py')
            return
        rate = ours['images_per_second']['end_to_end']['median']
        matrices = getattr(torch.cpu, '_is_amx_tile_supported', bool)()
        for what, amp, target in (
                ('both by default', '--no-amp', 2.2 if matrices else 1.3), ('both bfloat16', '--amp', 1.9)):
            name = f"ours / timm's script, {what}"
            if amp == '--amp' and not computes_bfloat16(torch.device('cpu')):
                yield Line(on, name, target, None, 'missing: the processor has no bfloat16')
                continue
            theirs = self.measured([*flags, amp, '--fused-attn'], timm=True)['against_timm']['images_per_second']
            yield Line(on, name, target, rate / theirs, f'{rate:.0f} and {theirs:.0f} images a second')

    def small(self) -> Iterator[Line]:
        """Models of 32 px, where reading and views weigh more."""
        for name, flags, target in (
                ('ViT-Ti/4, 32 px, 65 tokens', [*TI, '--model-kwargs', 'patch_size=4', '--img-size', '32'], 0.95),
                ('ViT-Ti/8, 32 px, 17 tokens', [*TI, '--model-kwargs', 'patch_size=8', '--img-size', '32'], 0.9),
                ("the rule's own model, 32 px", ['--img-size', '32', '--epochs', '100'], 0.85)):
            yield ratio(name, 'end to end / model alone', target, self.measured(flags), 'end to end / step')

    def views(self) -> Iterator[Line]:
        """Views on one thread, from decoded images."""
        spec = importlib.util.spec_from_file_location('augment', ROOT / 'benchmarks' / 'augment.py')
        assert spec is not None and spec.loader is not None
        augment = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(augment)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        quick = self.seconds != '10s'
        try:
            for case, measure, target in (
                    ('3-Augment, 32 px', 'images a second', 8000.0),
                    ("IDMM's six crops, 112 px", 'crops a second', 2100.0)):
                found = augment.measure(augment.CASES[case], 2 if quick else 7, 8 if quick else augment.BATCH)
                yield Line(f'{case}, one core', measure, target, found['batch'],
                           f"{found['batch'] / found['torchvision']:.1f} times torchvision on Pillow, "
                           f"{found['batch'] / found['image']:.1f} times image by image")
        finally:
            torch.set_num_threads(threads)

    def start(self) -> Iterator[Line]:
        """The first answers of the command line, beside `import timm`."""
        base = start_seconds(['-c', 'import timm'])
        run = 'import sys, timm_smalldata_cli as cli; sys.argv = ["timm-smalldata", "{}"]; cli.timm_smalldata()'
        for word, target in (('--version', 0.2), ('--help', 1.2)):
            seconds = start_seconds(['-c', run.format(word)])
            yield Line('the command', f'{word} / import timm (at most)', target, seconds / base,
                       f'{seconds:.2f} s and {base:.2f} s')

    def processes(self) -> Iterator[Line]:
        """Two processes with a thread each beside one with two threads, seconds of the second epoch."""
        flags = [*TI, '--model-kwargs', 'patch_size=8', '--img-size', '32', '--epochs', '2', '--val-fraction', '0']
        took = [epoch_seconds([str(self.data), *flags], processes) for processes in (1, 2)]
        yield Line('two processes (torchrun), two cores', 'speed / one process with two threads', 0.9,
                   took[0] / took[1], f'{took[1]:.1f} s and {took[0]:.1f} s an epoch')


def ratio(on: str, measure: str, target: float, result: Dict[str, Any], name: str) -> Line:
    """Return a line about a ratio that the verb measures, with the rates behind it."""
    rates = {what: found['median'] for what, found in result['images_per_second'].items()}
    told = ', '.join(f'{what.replace("_", " ")} {rate:,.0f}' for what, rate in rates.items())
    return Line(on, measure, target, result['ratios'][name], f'images a second: {told}')


def start_seconds(words: List[str], rounds: int = 3) -> float:
    """Return the median of the seconds that a Python process takes."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def epoch_seconds(words: List[str], processes: int) -> float:
    """Return the seconds of the second epoch of a training."""
    launch = [] if processes == 1 else ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    with tempfile.TemporaryDirectory() as place:
        batch = str(64 // processes)
        subprocess.run(
            [sys.executable, *launch, str(ROOT / 'train_smalldata.py'), *words, '-b', batch, '--device', 'cpu',
             '--output', place, '--experiment', 'e'], cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, 'OMP_NUM_THREADS': str(2 // processes), 'PYTHONPATH': str(ROOT)})
        return json.loads((Path(place) / 'e' / 'report.json').read_text(encoding='utf-8'))['timing']['epochs'][1]


def gpu_lines(result: Optional[Path]) -> Iterator[Line]:
    """Yield the lines of a GPU, from the JSON of `gpu.sh`; without it they are missing."""
    spec = importlib.util.spec_from_file_location('gpu', ROOT / 'benchmarks' / 'gpu.py')
    assert spec is not None and spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    found = json.loads(result.read_text(encoding='utf-8')) if result is not None else dict(device='a GPU', speed={})
    for row in gpu.ROWS:
        speed = found['speed'].get(row.name)
        on = f'{found["device"]}: {row.name}'
        if 'ratio' in row.targets:
            yield Line(on, 'end to end / model alone', row.targets['ratio'], None, MISSING) if speed is None else ratio(
                on, 'end to end / model alone', row.targets['ratio'], speed, 'end to end / step')
        if 'end_to_end' in row.targets:
            rate = None if speed is None else speed['images_per_second']['end_to_end']['median']
            yield Line(on, 'images a second', row.targets['end_to_end'], rate, MISSING if speed is None else '')


def table(lines: List[Line], commit: str) -> str:
    """Return the page, in Markdown."""
    load = f', load {os.getloadavg()[0]:.1f} at the end' if hasattr(os, 'getloadavg') else ''
    head = (f'# Speed\n\nMade by `benchmarks/speed.py` at commit {commit}, on {platform.machine()} with '
            f'{os.cpu_count()} cores{load}, torch {torch.__version__}. Ratios are of one run; where less was found '
            'than wanted, the rates behind it show why.\n\n'
            '| on | measure | wanted | found | |\n|---|---|---|---|---|\n')
    return head + ''.join(
        f'| {line.on} | {line.measure} | {shown(line.target)} | {"-" if line.found is None else shown(line.found)} | '
        f'{line.note} |\n' for line in lines)


def shown(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.2f}'


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, metavar='DATA')
    parser.add_argument('--against-timm', type=Path, metavar='FILE', help="timm's train.py")
    parser.add_argument('--gpu', type=Path, metavar='FILE', help='gpu.json of benchmarks/gpu.sh')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'speed.md', metavar='FILE')
    parser.add_argument('--measure', default='10s', metavar='TIME')
    parser.add_argument('--only', default='', metavar='WORD', help='large, small, views, start, processes or gpu')
    args = parser.parse_args(argv)
    speed = Speed(args.data, args.against_timm, args.measure)
    parts: Dict[str, Callable[[], Iterator[Line]]] = dict(
        large=speed.large, small=speed.small, views=speed.views, start=speed.start, processes=speed.processes,
        gpu=lambda: gpu_lines(args.gpu))
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    lines: List[Line] = []
    for name, part in parts.items():
        if args.only in name:
            lines += part()
            args.out.write_text(table(lines, commit.stdout.strip()), encoding='utf-8')
    print(args.out.read_text(encoding='utf-8') if lines else f'no part of that name: {args.only}')
    return 0 if lines else 2


if __name__ == '__main__':
    sys.exit(main())
