"""Does pretraining on the same images help? Paired differences over seeds of finished runs (docs/recipes-measured.md).

    python benchmarks/pretraining.py output

OUTPUT/ARM-SEED are runs of recipe idmm; benchmarks/pretraining.sh has their commands. Expected before they were
made, from the paper's table 8: idmm above none, and each step plain, low, multicrop, idmm above the one before. Whether
idmm is above long, which spends its minutes on labels alone, nothing in the paper says. Arm both, long from the
pretrained model, was added when two seeds of the others had been seen (long far above idmm); expected: above long, by
less than idmm above none.
"""
import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List, Optional

from timm_smalldata.evaluation.intervals import paired_interval

STEPS = ('none', 'plain', 'low', 'multicrop', 'idmm')
ASKED = (
    ('idmm', 'none'), ('idmm', 'long'), ('long', 'none'), ('both', 'long'),
    *zip(STEPS[1:], STEPS[:-1]), ('idmm', 'plain'))


def report(run: Path, stage: str) -> Optional[Dict[str, Any]]:
    """Return the report of a stage; a run of one stage has no folder for it."""
    found = [*run.glob(f'?-{stage}/report.json'), *([run / 'report.json'] if stage == 'finetune' else [])]
    return json.loads(found[0].read_text()) if found and found[0].exists() else None


def minutes(run: Path, stage: str) -> float:
    """Return how long the epochs of a stage took, each as long as the median: other work on the machine counts less."""
    found = report(run, stage)
    return statistics.median(found['timing']['epochs']) * len(found['timing']['epochs']) / 60 if found else 0.0


def equal_epochs(folder: Path, seed: str) -> int:
    """Return how many epochs of arm none take the minutes of arm idmm, both stages."""
    alone = report(folder / f'none-{seed}', 'finetune')
    assert alone is not None
    run = folder / f'idmm-{seed}'
    each = statistics.median(alone['timing']['epochs']) / 60
    return round((minutes(run, 'pretrain') + minutes(run, 'finetune')) / each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--equal-minutes', metavar='SEED', help='print the epochs of arm long')
    args = parser.parse_args()
    if args.equal_minutes:
        print(equal_epochs(args.folder, args.equal_minutes))
        return
    finetuned: Dict[str, Dict[str, float]] = {}
    for arm in (*STEPS, 'long', 'both'):
        runs = {run.name.rpartition('-')[2]: run for run in sorted(args.folder.glob(f'{arm}-?'))}
        ends = {seed: found for seed, run in runs.items() if (found := report(run, 'finetune'))}
        starts = {seed: found for seed in ends if (found := report(runs[seed], 'pretrain'))}
        finetuned[arm] = {seed: found['top1'] for seed, found in ends.items()}
        print(f'{arm:10s} ' + '   '.join([
            *(f'{probe} ' + spread([found['predictions'][probe]['top1'] for found in starts.values()])
              for probe in ('knn', 'linear') if starts),
            'fine-tuned ' + spread(list(finetuned[arm].values())),
            'minutes ' + spread([minutes(runs[seed], 'pretrain') + minutes(runs[seed], 'finetune') for seed in ends])]))
    for one, other in ASKED:
        seeds = sorted(finetuned[one].keys() & finetuned[other].keys())
        if seeds:
            gain = paired_interval([finetuned[one][seed] - finetuned[other][seed] for seed in seeds])
            print(f'{one} - {other}: {gain.mean:+.2f} ({gain.lo:+.2f} to {gain.hi:+.2f}), {len(seeds)} seeds')


def spread(values: List[float]) -> str:
    """Return mean and standard deviation, and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else float('nan')
    each = ' '.join(f'{value:.1f}' for value in values)
    return f'{statistics.fmean(values):.1f} sd {deviation:.2f} [{each}]' if values else '-'


if __name__ == '__main__':
    main()
