#!/usr/bin/env python3
"""What a GPU does: the device tests, the speed table and NCCL with one process, into OUT/gpu.json (see gpu.sh).

    python benchmarks/gpu.py OUT [--small] [--minutes 8]

Every part is a process with the time that is left as its limit; the JSON is written anew after each part.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """A line of the speed table: what is trained, and what of it is wanted at least."""
    name: str
    flags: List[str]
    targets: Dict[str, float]


COMMON = ['--epochs', '100', '--opt', 'adamw', '--aug', 'three-augment', '--torchcompile']
ROWS = [
    Row('ViT-Ti/8, 64 px, 65 tokens', [
        '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', '--img-size', '64', '-b', '1024',
        '--mixup', '0.8', *COMMON], dict(end_to_end=45_000, ratio=0.95)),
    Row('ViT-Ti/16, 224 px', [
        '--model', 'vit_tiny_patch16_224', '--img-size', '224', '-b', '512', '--mixup', '0.8', *COMMON],
        dict(end_to_end=15_000, ratio=0.95)),
    Row("IDMM's six crops, 112 px, DeiT-Ti", [
        '--task', 'idmm', '--model', 'deit_tiny_patch16_224', '--img-size', '112', '-b', '256', '--epochs', '100',
        '--torchcompile'], dict(ratio=0.9)),
    Row('ViT-Ti/8, 64 px, batch 64, CUDA graphs', [
        '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', '--img-size', '64', '-b', '64',
        '--torchcompile-mode', 'reduce-overhead', *COMMON], {}),
]
SMALL = [Row('as short as it goes', [
    '--model', 'vit_pico_convstem', '--img-size', '32', '-b', '8', '--epochs', '1'], dict(ratio=0.95))]


def make_images(folder: Path, count: int, side: int) -> Path:
    """Write JPEG images of two classes."""
    rng = np.random.RandomState(0)
    for number in range(count):
        path = folder / 'train' / f'class{number % 2}' / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return folder


def part(words: List[str], seconds: float, **env: str) -> Dict[str, Any]:
    """Run Python with these words; returns how it ended, after how long, and the last lines that it said."""
    began = time.time()
    if seconds < 5:
        return dict(outcome='no time left', seconds=0.0, said='')
    try:
        done = subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, **env}, timeout=seconds,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        outcome, said = 'ok' if done.returncode == 0 else f'exit code {done.returncode}', done.stdout
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b''
        outcome, said = 'timed out', raw.decode(errors='replace') if isinstance(raw, bytes) else raw
    return dict(outcome=outcome, seconds=round(time.time() - began, 1), said=said[-3000:])


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, metavar='OUT')
    parser.add_argument('--small', action='store_true', help='in short; on a CPU where there is no GPU')
    parser.add_argument('--minutes', type=float, default=8.0, help='for all [8]')
    args = parser.parse_args(argv)
    end = time.time() + 60 * args.minutes - 10
    cuda = torch.cuda.is_available()
    if not cuda and not args.small:
        print('error: torch sees no GPU here; SMALL=1 tries the script out on a CPU.', file=sys.stderr)
        return 2
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    found: Dict[str, Any] = dict(
        device=torch.cuda.get_device_name(0) if cuda else 'cpu', torch=torch.__version__, cuda=torch.version.cuda,
        commit=commit.stdout.strip(), small=args.small, parts={}, speed={})

    def note(name: str, done: Dict[str, Any]) -> None:
        found['parts'][name] = done
        (out / 'gpu.json').write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
        print(f'{name}: {done["outcome"]}, {done["seconds"]:.0f} s', flush=True)

    device = 'cuda' if cuda else 'cpu'
    images = make_images(out / 'images', 24 if args.small else 4096, 40 if args.small else 256)
    small = ['-k', 'frames or lie_on'] if args.small else []
    note('device tests', part(
        ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/device', 'tests/data/test_batch_augment.py', *small],
        min(150, end - time.time())))
    for row in SMALL if args.small else ROWS:
        result = out / 'row.json'
        done = part(['-m', 'timm_smalldata', 'benchmark', str(images), *row.flags, '--device', device, '--measure',
                     '0.1s' if args.small else '4s', '--result', str(result)], min(120, end - time.time()))
        if done['outcome'] == 'ok':
            found['speed'][row.name] = dict(json.loads(result.read_text(encoding='utf-8')), targets=row.targets)
        note(row.name, done)
    note('NCCL, one process' if cuda else 'one process of several', part(
        ['benchmarks/one_rank.py', device], min(60, end - time.time())))
    failed = [name for name, done in found['parts'].items() if done['outcome'] != 'ok']
    print(table(found))
    return 1 if failed else 0


def table(found: Dict[str, Any]) -> str:
    """Return the speed table, in Markdown."""
    lines = [f"{found['device']}, torch {found['torch']}, commit {found['commit']}", '',
             '| what | images a second, end to end | the model alone | ratio | wanted |', '|---|---|---|---|---|']
    for name, row in found['speed'].items():
        rates, targets = row['images_per_second'], row['targets']
        wanted = ', '.join(f'{what.replace("_", " ")} {value:,}' for what, value in targets.items())
        lines.append(f'| {name} | {rates["end_to_end"]["median"]:,.0f} | {rates["step"]["median"]:,.0f} | '
                     f'{row["ratios"]["end to end / step"]:.2f} | {wanted} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
