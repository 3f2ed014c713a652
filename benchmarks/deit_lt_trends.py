"""Do DeiT-LT's published trends show? Paired differences over the seeds of finished runs (docs/distillation.md).

    python benchmarks/deit_lt_trends.py output

OUTPUT/sam-SEED and OUTPUT/plain-SEED are runs of recipe deit-lt, with and without SAM for the teacher.
"""
import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Callable, Dict, List

from timm_smalldata.cli.analyse import main as analyse
from timm_smalldata.evaluation.intervals import paired_interval

STUDENT = '2-student'
GROUPS = ('balanced_top1', 'many', 'medium', 'few')


def predictions(run: Path) -> Dict[str, Dict[str, float]]:
    """Return the metrics in percent of each head (cls, dist) and of their mean (avg)."""
    return json.loads((run / STUDENT / 'report.json').read_text())['predictions']


def head(run: Path, name: str, metric: str) -> float:
    """Return one of them."""
    return predictions(run)[name][metric]


def distances(run: Path) -> List[float]:
    """Return the tokens' cosine distance, epoch by epoch."""
    with open(run / STUDENT / 'summary.csv', newline='') as stream:
        return [1 - float(row['train_token_cosine']) for row in csv.DictReader(stream)]


def rank(run: Path) -> float:
    """Return the rank of the DIST features of rare test classes, mean of the blocks; read again if it was measured."""
    folder = run / 'rank'
    if not (folder / 'feature-rank.csv').exists() and analyse(
            ['feature-rank', str(run / STUDENT), '--group', 'few', '--output', str(folder)]):
        sys.exit(1)
    with open(folder / 'feature-rank.csv', newline='') as stream:
        return statistics.fmean(
            int(row['rank']) for row in csv.DictReader(stream) if row['token'] == 'DIST' and row['block'] != 'norm')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--weighted', type=int, default=8, help='epochs with class weights')
    args = parser.parse_args()
    arms: Dict[str, List[Path]] = {
        arm: sorted(p for p in args.folder.glob(f'{arm}-*') if (p / STUDENT / 'report.json').exists())
        for arm in ('sam', 'plain')}
    for arm, runs in arms.items():
        print(f'\n{arm}: {", ".join(run.name for run in runs)}')
        for run in runs:
            teacher = json.loads((run / '1-teacher' / 'report.json').read_text())
            cells = {'teacher': teacher, **{name: predictions(run)[name] for name in ('cls', 'dist', 'avg')}}
            print(f'  {run.name}: ' + '; '.join(
                f'{name} ' + ' / '.join(f'{row[m]:.1f}' for m in GROUPS) for name, row in cells.items()))
    number = args.weighted

    def late(run: Path) -> float:
        values = distances(run)
        return statistics.fmean(values[-number:]) - statistics.fmean(values[-2 * number:-number])

    asked: Dict[str, Callable[[Path], float]] = {
        '1 few: DIST - CLS': lambda r: head(r, 'dist', 'few') - head(r, 'cls', 'few'),
        '2 many: CLS - DIST': lambda r: head(r, 'cls', 'many') - head(r, 'dist', 'many'),
        '3 balanced: mean - CLS': lambda r: head(r, 'avg', 'balanced_top1') - head(r, 'cls', 'balanced_top1'),
        '3 balanced: mean - DIST': lambda r: head(r, 'avg', 'balanced_top1') - head(r, 'dist', 'balanced_top1'),
        '4 distance: last - first epoch': lambda r: distances(r)[-1] - distances(r)[0],
        '4 distance: with - before weights': late,
    }
    for arm, runs in arms.items():
        for name, difference in asked.items():
            show(f'{arm}, {name}', [difference(run) for run in runs])
    by_seed = {run.name.rpartition('-')[2]: run for run in arms['plain']}
    pairs = [(run, by_seed[seed]) for run in arms['sam'] if (seed := run.name.rpartition('-')[2]) in by_seed]
    show('5 rank of DIST: SAM - plain', [rank(one) - rank(other) for one, other in pairs])
    for name, metric in (('few', 'few'), ('balanced', 'balanced_top1')):
        show(f'{name} of the mean: SAM - plain',
             [head(one, 'avg', metric) - head(other, 'avg', metric) for one, other in pairs])


def show(name: str, values: List[float]) -> None:
    """Print a mean difference with its interval, and the differences."""
    found = paired_interval(values)
    print(f'{name:40s} {found.mean:+8.3f} ({found.lo:+.3f} to {found.hi:+.3f})   '
          + ' '.join(f'{value:+.3f}' for value in values))


if __name__ == '__main__':
    main()
