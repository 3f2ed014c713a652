"""What given minutes buy: the train command on image folders, beside references that anyone has, as a table.

    python benchmarks/minutes.py OUT --set flowers=DIR --set skin=DIR:balanced --minutes 2 8 --threads 1 --seeds 3 \\
        [--arms default mission] [--reference FILE] [--jobs 2] [--results benchmarks/results/first-result.jsonl]
    python benchmarks/minutes.py --page  # no run: the tables of docs/first-result.md and README, from the results

DIR holds `train/CLASS/*` and `test/CLASS/*`. `:balanced` judges by mean recall of the classes in place of top-1. Arms:
`default` is the train command with `--time-budget` only, `mission` adds `--loss balanced-bce --aug three-augment`,
`ce` and `balanced-bce` name the loss only; `cnn`, `hog` and `hist` are those of a reference script (`FILE KIND TRAIN
TEST --minutes M --threads T --seed S`, which prints a line of JSON with `top1` and `balanced`). The budget of the train
command counts from the start to the report, that of a reference its training only; the seconds of both are written
down. What the results have is not run again, whatever commit it was run at; runs lie in OUT. Prints a table of mean,
standard deviation and seconds.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from timm_smalldata.run.folder import processor  # noqa: E402

RESULTS = ROOT / 'benchmarks/results/first-result.jsonl'
BEGIN, END = '<!-- made by benchmarks/minutes.py from here -->\n', '<!-- to here -->\n'
FLAGS: Dict[str, List[str]] = {
    'default': [], 'mission': ['--loss', 'balanced-bce', '--aug', 'three-augment'], 'ce': ['--loss', 'ce'],
    'balanced-bce': ['--loss', 'balanced-bce']}
SHORT = {  # rows of README
    'flowers': '2,040 flowers of 102 kinds, top-1',
    'photos900': '880 flowers of 30 kinds, 75 to 7 of each, mean recall',
    'ham': '4,491 skin lesions of 7 kinds, 72 : 1, mean recall'}
NAMES = dict(top1='top-1', balanced='mean recall')


class Run(NamedTuple):
    """One run: what on what, for how long, how."""
    data: str
    arm: str
    minutes: float
    threads: int
    seed: int


def command(run: Run, args: argparse.Namespace) -> List[str]:
    """Return the words that make a run."""
    folder = args.sets[run.data].partition(':')[0]
    if run.arm in FLAGS:
        name = '-'.join(map(str, run))
        return [sys.executable, str(ROOT / 'train_smalldata.py'), folder, '--time-budget', f'{run.minutes:g}m',
                '--seed', str(run.seed), '--output', str(args.out), '--experiment', name, *FLAGS[run.arm]]
    return [sys.executable, str(args.reference), run.arm, f'{folder}/train', f'{folder}/test', '--minutes',
            f'{run.minutes:g}', '--threads', str(run.threads), '--seed', str(run.seed)]


def start(run: Run, args: argparse.Namespace, cores: List[int]) -> subprocess.Popen:
    """Start a run on some cores."""
    env = dict(os.environ, OMP_NUM_THREADS=str(run.threads))
    return subprocess.Popen(
        command(run, args), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores))


def result(run: Run, args: argparse.Namespace, said: str, seconds: float) -> Dict[str, Any]:
    """Return what is written down of a finished run."""
    if run.arm in FLAGS:
        folder = args.out / '-'.join(map(str, run))
        found = json.loads((folder / 'report.json').read_text())
        choice = json.loads((folder / 'choice.json').read_text())['values']
        more = dict(balanced=found['balanced_top1'], epochs=choice['epochs'], model=choice.get('model'))
    else:
        found = json.loads(said.strip().splitlines()[-1])
        more = dict(balanced=found['balanced'], epochs=found['epochs'])
    metric = 'balanced' if args.sets[run.data].endswith(':balanced') else 'top1'
    return dict(run._asdict(), metric=metric, top1=found['top1'], **more, seconds=round(seconds, 1), commit=args.commit,
                machine=args.machine)


def run_all(missing: List[Run], args: argparse.Namespace) -> None:
    """Run what is missing, some at a time, each on cores of its own."""
    free, running = sorted(os.sched_getaffinity(0)), []
    while missing or running:
        while missing and len(running) < args.jobs and len(free) >= missing[0].threads:
            run = missing.pop(0)
            cores, free = free[:run.threads], free[run.threads:]
            running.append((run, start(run, args, cores), cores, time.time()))
        time.sleep(0.2)
        for entry in [e for e in running if e[1].poll() is not None]:
            run, process, cores, began = entry
            running.remove(entry)
            free = sorted(free + cores)
            out, err = process.communicate()
            if process.returncode:
                print(f'failed: {run}: {err.strip().splitlines()[-1:]}', file=sys.stderr)
                continue
            line = result(run, args, out, time.time() - began)
            with open(args.results, 'a') as file:
                file.write(json.dumps(line) + '\n')
            print(json.dumps(line), flush=True)


def read(file: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(lines: List[Dict[str, Any]]) -> str:
    """Return mean and standard deviation over seeds, and mean seconds, by images, time and arm."""
    groups: Dict[Any, List[Dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line['data'], line['metric'], line['minutes'], line['threads']), []).append(line)
    arms = list(dict.fromkeys(line['arm'] for line in lines))
    rows = ['| images | minutes x threads | ' + ' | '.join(arms) + ' | commit |', '|---' * (3 + len(arms)) + '|']
    for (data, metric, minutes, threads), found in sorted(groups.items()):
        cells = [cell([line for line in found if line['arm'] == arm], metric) for arm in arms]
        cells.append(', '.join(dict.fromkeys(line['commit'] for line in found)))
        rows.append(f'| {data}, {NAMES[metric]} | {minutes:g} x {threads} | ' + ' | '.join(cells) + ' |')
    machines = dict.fromkeys(line['machine'] for line in lines)
    return '\n'.join(rows) + (
        '\n\nMean ± standard deviation over seeds; in brackets the number of seeds and the mean seconds of a whole '
        f'run. Machine: {", ".join(machines)}.\n')


def cell(lines: List[Dict[str, Any]], metric: str) -> str:
    if not lines:
        return ''
    values = [line[metric] for line in lines]
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    seconds = statistics.mean(line['seconds'] for line in lines)
    return f'{statistics.mean(values):.1f}{spread} ({len(values)}; {seconds:.0f} s)'


def short_table(lines: List[Dict[str, Any]]) -> str:
    """Return what eight minutes of one thread buy, in a line for each kind of images."""
    rows = ['| images | plain CNN | this |', '|---|---|---|']
    for data, words in SHORT.items():
        found = [line for line in lines if (line['data'], line['minutes'], line['threads']) == (data, 8, 1)]
        means = [statistics.mean(line[line['metric']] for line in found if line['arm'] == arm)
                 for arm in ('cnn', 'default')]
        rows.append(f'| {words} | {means[0]:.1f} | **{means[1]:.1f}** |')
    return '\n'.join(rows) + '\n'


def with_table(text: str, made: str) -> str:
    """Return a page with another table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + '\n' + made + '\n' + END + rest.partition(END)[2]


def write_pages() -> None:
    """Put the tables of the results into the pages."""
    for page, make in PAGES.items():
        page.write_text(with_table(page.read_text(), make(read(RESULTS))))


PAGES = {ROOT / 'docs/first-result.md': table, ROOT / 'README.md': short_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, nargs='?')
    parser.add_argument('--page', action='store_true')
    parser.add_argument('--set', action='append', dest='sets', default=[], metavar='NAME=DIR[:balanced]')
    parser.add_argument('--minutes', type=float, nargs='+', default=[8])
    parser.add_argument('--threads', type=int, nargs='+', default=[1])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--arms', nargs='+', default=['default', 'mission'])
    parser.add_argument('--reference', type=Path)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.page:
        return write_pages()
    if not args.out or not args.sets:
        parser.error('OUT and --set, or --page')
    args.sets = dict(entry.split('=', 1) for entry in args.sets)
    args.commit = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    args.machine = f'{processor()} x {os.cpu_count()}'
    args.out.mkdir(parents=True, exist_ok=True)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    done = {Run(*(line[name] for name in Run._fields)) for line in read(args.results)}
    wanted = [Run(data, arm, minutes, threads, seed) for minutes, seed, data, arm, threads in product(
        args.minutes, range(args.seeds), args.sets, args.arms, args.threads)
        if not (seed and arm in ('hog', 'hist'))]
    run_all([run for run in wanted if run not in done], args)
    print(table(read(args.results)))


if __name__ == '__main__':
    main()
