"""The matrix of a transfer: a row for what was pretrained on, a column for what was fine-tuned on."""
import statistics
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ..utils.files import write_csv_atomic, write_text_atomic
from .comparison import METRICS, Run

SCRATCH = 'scratch'


def write_matrix(output: Path, names: Sequence[str], runs: Dict[Tuple[str, str, int], Run], command: str) -> str:
    """Write `transfer.md` (the matrix) and `transfer.csv` (a row for each run); returns the first.

    Args:
        output: Their folder.
        names: The sets of images.
        runs: By what was pretrained on (or `SCRATCH`), what was fine-tuned on, and seed.
        command: The command that made them.
    """
    rows: List[List[Any]] = [
        [source, target, seed, *((r.report or {}).get(metric) for metric in (*METRICS, 'split', 'epoch')), r.failure]
        for (source, target, seed), r in runs.items()]
    header = ['pretrained_on', 'finetuned_on', 'seed', *METRICS, 'split', 'epoch', 'failure']
    write_csv_atomic(output / 'transfer.csv', header, rows)
    text = format_matrix(names, runs, command)
    write_text_atomic(output / 'transfer.md', text)
    return text


def format_matrix(names: Sequence[str], runs: Dict[Tuple[str, str, int], Run], command: str) -> str:
    """Return the matrix of balanced accuracies, in percent, as Markdown."""
    seeds = list(dict.fromkeys(seed for _, _, seed in runs))
    lines = [f'| pretrained on | {" | ".join(names)} |', '|---|' + '---|' * len(names)]
    for source in (SCRATCH, *names):
        cells = [cell([runs[source, target, seed] for seed in seeds]) for target in names]
        lines.append(f'| {source} | {" | ".join(cells)} |')
    splits = sorted({r.report['split'] for r in runs.values() if r.report})
    spread = ', mean and standard deviation over the seeds' if len(seeds) > 1 else ''
    lines += ['', f'Balanced accuracy in percent after fine-tuning on the set of the column, judged on its '
                  f'{" and ".join(splits) or "images"}{spread}; seeds {", ".join(map(str, seeds))}.', '',
              f'`{command}`', '']
    for r in runs.values():
        if r.report is None:
            lines.append(f'{r.value}, seed {r.seed}: failed: {r.failure}')
    return '\n'.join(lines).rstrip('\n') + '\n'


def cell(runs: Sequence[Run]) -> str:
    """Return the mean of runs over seeds, and how far they are apart."""
    values = [r.report['balanced_top1'] for r in runs if r.report is not None]
    if len(values) < len(runs):
        return 'failed'
    mean = f'{statistics.mean(values):.1f}'
    return f'{mean} ± {statistics.stdev(values):.1f}' if len(values) > 1 else mean
