#!/usr/bin/env python3
"""Whether two versions of this project train the same bits: the check of a change that should change nothing.

    git worktree add ../before COMMIT
    python benchmarks/same_bits.py run ../before runs-before
    python benchmarks/same_bits.py run . runs-after
    python benchmarks/same_bits.py compare runs-before runs-after

`run` trains a fixed list of small commands over tasks, losses, samplers, optimizers and recipes with the code of a
checkout, one thread, on the CPU (some minutes). `compare` reads what they left: every tensor of the checkpoints and of
the exported models, `summary.csv`, `per_class.csv`, `confusion.csv` and `report.json` without `timing`.
"""
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

VIT = '--model vit_tiny_patch16_224 --model-kwargs patch_size=8 embed_dim=24 num_heads=2 depth=2'
TWO = f'{VIT} --epochs 2 --batch-size 64'
DISTILLED = '--model deit_tiny_distilled_patch16_224 --model-kwargs patch_size=8 embed_dim=24 num_heads=2 depth=2'
RESNET = '--model resnet20_cifar --epochs 2 --batch-size 64 --img-size 32'
FEATURES = f'{TWO} --probe-interval 1'

# name: flags of the train command; {NAME} is the folder of an earlier run of this list.
COMMANDS: Dict[str, str] = {
    'default': '--epochs 1',
    'mission': f'{TWO} --loss balanced-bce --aug three-augment',
    **{f'loss-{name}': f'{TWO} --loss {name}' for name in (
        'balanced-softmax', 'logit-adjusted', 'focal', 'class-balanced-ce', 'class-balanced-focal',
        'label-aware-smoothing', 'vector-scaling', 'lade', 'asl', 'poly', 'jsd')},
    'loss-bce': f'{TWO} --loss bce --mixup 0.8 --cutmix 1.0 --mixup-off-epoch 1',
    'loss-ldam': f'{TWO} --loss ldam --head cosine --drw-epoch 1 --posthoc-tau 1',
    'loss-kwargs': f'{TWO} --loss class-balanced-focal --loss-kwargs gamma=1 beta=0.99 --smoothing 0.1',
    'posthoc': f'{TWO} --posthoc-tau 1 --tau-norm 1 --temperature',
    'sampler': f'{TWO} --sampler progressive --drs-epoch 1',
    'power': f'{TWO} --sampler-power 0.5 --aug-repeats 3 --layer-decay 0.75 --opt lamb',
    'sam': f'{TWO} --sam-rho 0.05 --opt sgd --lr 0.05 --model resnet20_cifar --model-kwargs',
    'sam-schedule': f'{TWO} --sam-rho-schedule "0:0 1:0.1" --sam-adaptive',
    'sizes': f'{RESNET} --train-img-sizes 24 32 --train-size-schedule progressive',
    'ema': f'{TWO} --model-ema --model-ema-decay 0.9 --grad-accum-steps 2 --clip-grad 1 --head-init-scale 0.5',
    'amp': f'{TWO} --amp --channels-last --reprob 0.3 --aa rand-m9-mstd0.5-inc1',
    'shapes': f'{TWO} --dataset sample/shapes --train-crop-mode src --color-jitter 0.3 --epochs 1',
    'idmm': f'{FEATURES} --task idmm --img-size 32',
    'simclr': f'{FEATURES} --task simclr --img-size 32',
    'supcon': f'{FEATURES} --task supcon --img-size 32 --probe linear',
    'dino': f'{FEATURES} --task dino --opt adamw --lr 1e-3 --img-size 32 --dino-out-dim 64 --dino-local-crops 2',
    'mae': f'{FEATURES} --task mae --img-size 32',
    'paco': f'{RESNET} --task paco',
    'teacher': RESNET,
    'deit-lt': f'{DISTILLED} --epochs 2 --batch-size 64 --task deit-lt --teacher {{teacher}} --drw-epoch 1',
    'fine-tuned': f'{TWO} --initial-checkpoint {{idmm}}/model --img-size 32 --freeze-backbone',
    **{f'recipe-{name}': f'--recipe {name} --epochs 1 {more}' for name, more in (
        ('fixres', ''), ('idmm', ''), ('livt', ''), ('dino', ''), ('deit3', ''), ('ldam-drw-sam', '--drw-epoch 0'),
        ('paco', ''), ('paco-sam', '--sam-rho-schedule "0:0.1"'), ('deit-lt', '--drw-epoch 0'))},
}


def run(tree: Path, output: Path, only: List[str]) -> int:
    """Train the commands (or some of them) with the code in `tree`; returns how many failed."""
    import shlex
    tree = tree.resolve()  # before the folder changes
    sys.path.insert(0, str(tree))
    os.environ['OMP_NUM_THREADS'] = '1'
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    os.chdir(output)
    import torch
    torch.set_num_threads(1)
    import train_smalldata
    assert Path(train_smalldata.__file__).resolve().parent == tree, f'{train_smalldata.__file__} is not of {tree}'
    failed = []
    for name, text in COMMANDS.items():
        if only and name not in only or (output / name / 'done').exists():
            continue
        flags = text.format(**{other: output / other for other in COMMANDS})
        argv = [*shlex.split(flags), '--device', 'cpu', '--workers', '0', '--output', '.', '--experiment', name]
        print(f'--- {name}: {flags}', file=sys.stderr, flush=True)
        code = train_smalldata.main(argv)
        failed += [name] * (code != 0)
        if not code:
            (output / name / 'done').touch()
    print(f'{len(failed)} of {len(COMMANDS)} commands failed: {", ".join(failed) or "none"}')
    return len(failed)


def tensors(value: Any, place: str = '') -> Iterator[Tuple[str, Any]]:
    """Yield (place, tensor or number) of everything in a checkpoint but settings and times."""
    import torch
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ('args', 'given', 'amp_scaler'):
                yield from tensors(inner, f'{place}/{key}')
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from tensors(inner, f'{place}/{number}')
    elif isinstance(value, (torch.Tensor, int, float, str, type(None))):
        yield place, value


def differences(before: Path, after: Path) -> List[str]:
    """Return what differs between two run folders, as lines."""
    import torch
    from safetensors.torch import load_file
    found: List[str] = []

    def compare(what: str, one: Dict[str, Any], two: Dict[str, Any]) -> None:
        if one.keys() != two.keys():
            found.append(f'{what}: other entries {sorted(one.keys() ^ two.keys())[:4]}')
        for key in one.keys() & two.keys():
            a, b = one[key], two[key]
            same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)
            if not same:
                found.append(f'{what}: {key} differs')
                return

    files = {p.relative_to(before) for p in before.rglob('*') if p.is_file()}
    theirs = {p.relative_to(after) for p in after.rglob('*') if p.is_file()}
    for name in sorted(files ^ theirs):
        found.append(f'{name}: only {"before" if name in files else "after"}')
    for name in sorted(files & theirs):
        one, two = before / name, after / name
        if name.name.endswith('.pth.tar'):
            saved = (torch.load(path, weights_only=False, map_location='cpu') for path in (one, two))
            compare(str(name), *(dict(tensors(state)) for state in saved))
        elif name.suffix == '.safetensors':
            compare(str(name), load_file(one), load_file(two))
        elif name.name == 'report.json':
            compare(str(name), *({k: v for k, v in json.loads(p.read_text()).items() if k != 'timing'}
                                 for p in (one, two)))
        elif name.suffix in ('.csv', '.json') and name.name != 'environment.json':
            found += [f'{name} differs'] * (one.read_bytes() != two.read_bytes())
    return found


def compare(before: Path, after: Path) -> int:
    """Print what differs; returns the number of commands that left something else."""
    names = sorted({p.name for p in (*before.iterdir(), *after.iterdir()) if not p.name.startswith('.')})
    wrong = 0
    for name in names:
        lines = differences(before / name, after / name) if (before / name).is_dir() and (after / name).is_dir() else [
            'only on one side']
        wrong += bool(lines)
        print(f'{name}: ' + ('the same bits' if not lines else '; '.join(lines[:6])))
    print(f'{len(names) - wrong} of {len(names)} commands left the same bits')
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest='verb', required=True)
    trains = verbs.add_parser('run', help='train the commands with the code of a checkout')
    trains.add_argument('tree', type=Path)
    trains.add_argument('output', type=Path)
    trains.add_argument('--only', nargs='+', default=[], metavar='NAME', help='some of the commands')
    compares = verbs.add_parser('compare', help='compare what two such runs left')
    compares.add_argument('before', type=Path)
    compares.add_argument('after', type=Path)
    args = parser.parse_args()
    return run(args.tree, args.output, args.only) if args.verb == 'run' else compare(args.before, args.after)


if __name__ == '__main__':
    sys.exit(min(main(), 1))
