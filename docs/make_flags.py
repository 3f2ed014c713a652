#!/usr/bin/env python3
"""Write docs/flags.md from the table of flags: `python docs/make_flags.py`. A test keeps the two equal."""
from pathlib import Path

from timm_smalldata.config.flags import FLAGS

CHANGED = {
    'train-split': ('train', 'found', 'split folders are found; a named split is used as named'),
    'val-split': ('validation', 'found', 'the same; where there is none it is held out'),
    'model': ('resnet50', 'rule', 'chosen from the data and the device'),
    'crop-pct': ("the model's", '1.0', 'small images lose too much at the border'),
    'interpolation': ("the model's", 'bicubic', 'as all recipes here were published'),
    'batch-size': ('128', 'rule', 'a batch larger than the data trains nothing'),
    'device': ('cuda', 'auto', 'a laptop is a first-class machine'),
    'amp': ('off', 'on for CUDA', 'bfloat16 needs no loss scaling'),
    'amp-dtype': ('float16', 'bfloat16', 'the same range as float32'),
    'opt': ('sgd', 'adamw', 'vision transformers from scratch'),
    'weight-decay': ('2e-5', '0.05', 'goes with adamw'),
    'lr-base': ('0.1', '1e-3', 'goes with adamw'),
    'warmup-lr': ('1e-5', '1e-6', 'as in DeiT'),
    'min-lr': ('0', '1e-6', 'the last epochs still learn'),
    'warmup-epochs': ('5', 'a tenth of the run, at most 5', 'short runs'),
    'sched-on-updates': ('off', 'on', 'a short run has few epochs to step at'),
    'decay-milestones': ('drop a step before', 'drop at the milestone', 'an epoch is counted as everywhere else'),
    'epochs': ('300', 'rule', 'chosen from the number of images and the device'),
    'scale': ('0.08 1.0', 'rule', '0.3 1.0 below 128 px, where a small cut shows nothing'),
    'color-jitter': ('0.4', 'by --aug', '0.4 without a preset'),
    'train-interpolation': ('random', 'bicubic', 'one interpolation in training and evaluation'),
    'smoothing': ('0.1', 'by --loss', 'what each loss was published with'),
    'workers': ('4', '0 on a CPU, else 4', 'on two cores workers take the time that training needs'),
    'output': ('./output/train', 'output', 'shorter'),
    'eval-metric': ('top1', 'balanced_top1', 'on uneven data top-1 hides the tail'),
}
LEFT_OUT = {
    'train-num-samples, val-num-samples': 'for streaming data, which cannot be counted or split beforehand',
    'input-img-mode, in-chans, input-size': 'images are RGB and square',
    'fuser, torchscript, drop-connect': 'deprecated in timm',
    'model-dtype': 'weights stay float32; --amp is the way to reduced precision',
    'synchronize-step': 'the loop waits for the device only where it prints',
    'local-rank': 'read from the environment that torchrun sets',
    'epoch-repeats': 'use --epochs',
    'start-epoch': 'a resumed run knows its epoch',
    'split-bn': 'for adversarial propagation',
    'worker-seeding': 'draws carry their own seeds, whatever worker renders them',
    'recovery-interval': 'the unit of resuming is the epoch',
    'checkpoint-hist': 'kept are the last checkpoint, the one before it, the best one and --save-epochs',
    'no-prefetcher, use-multi-epochs-loader': 'there is one loader',
    'tta': 'not built',
    'variable-batch-loss-scale, naflex-*': 'NaFlex models have a data path of their own; use timm\'s script',
    'poly-gamma, target-format, multilabel-threshold': 'for multi-label data; use timm\'s script',
    'sweep-locks, sweep-attempt': 'internal to timm\'s sweeps',
}


def render() -> str:
    """Return the page."""
    lines = [
        '# Flags', '',
        'Names and meanings are those of timm 1.0.31\'s `train.py`; flags marked * are ours. A default of *set later* '
        'is filled by the chosen loss, augmentation, sample or by the rule in [data.md](data.md), and printed with '
        'what set it. Switches that a file or recipe turned on are turned off with `--no-NAME`. Abbreviations are not '
        'accepted. '
        'The page is written by `docs/make_flags.py`.', '',
        'Precedence: `--STAGE.flag` > `--flag` > `-c FILE` > recipe > sample > defaults. A contradiction between flags '
        'of one source is an error; a higher source silences a lower one, with a line.', '']
    group = ''
    for flag in FLAGS:
        if flag.group != group:
            group = flag.group
            lines += [f'## {group}', '', '| flag | default | meaning |', '|---|---|---|']
        default = '' if flag.default in ('', False, {}, []) else f'`{flag.default}`'
        if flag.default is None:
            default = 'set later'
        if flag.default is None and flag.type is str and not flag.choices:
            default = ''
        text = flag.help + (f' ({", ".join(c or "empty" for c in flag.choices)})' if flag.choices else '')
        lines.append(f'| `--{flag.name}`{" *" if flag.own else ""} | {default} | {text.replace("|", "/")} |')
        if flag is FLAGS[-1] or FLAGS[FLAGS.index(flag) + 1].group != group:
            lines.append('')
    lines += ['## Defaults that differ from timm', '', '| flag | timm | here | why |', '|---|---|---|---|']
    lines += [f'| `--{name}` | {old} | {new} | {why} |' for name, (old, new, why) in CHANGED.items()]
    lines += ['', '## Flags of timm that are left out', '', '| flag | why |', '|---|---|']
    for names, why in LEFT_OUT.items():
        lines.append(f'| {", ".join(f"`--{name.strip()}`" for name in names.split(","))} | {why} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    Path(__file__).with_name('flags.md').write_text(render(), encoding='utf-8')
