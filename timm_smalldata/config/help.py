"""`--help` of the train command: one screen with what most people need; `--help-all` lists every flag."""
import argparse
from typing import Any

from ..utils.command import typed
from .flags import BY_DEST, FLAGS
from .recipe import recipe_names, recipe_summary

CHIEF = (
    'time_budget', 'model', 'img_size', 'loss', 'hflip', 'val_fraction', 'recipe', 'experiment', 'resume', 'dry_run')
WIDTH = 100
HELP = {  # where the row's own words take more than a line
    'time_budget': 'how long it may take: 45s, 30m, 2h; model and epochs follow from it',
    'loss': 'ce, balanced-softmax, balanced-bce, ldam, ... (uneven classes: the second)',
    'hflip': 'probability of mirror images; 0 where left and right differ',
    'val_fraction': 'share held out to compare settings by; test images are held out anyway',
    'recipe': 'a whole method, see below',
    'experiment': 'name of this run: results lie in output/NAME, the model in output/NAME/model',
    'resume': 'auto: continue the run of that name',
    'dry_run': 'print what would be trained, for how long, and stop',
}


def short_help() -> str:
    """Return the screen."""
    name = typed()
    lines = [
        f'usage: {name} [DIR] [flags]', '',
        'Train an image classifier from scratch on few or unevenly many images: DIR holds a folder of',
        'images for each class. Without DIR an embedded sample is used. What is not given is chosen from',
        'the images, and printed.', '',
        'flags that matter:']
    lines += [_row(dest) for dest in CHIEF]
    lines += ['', 'recipes (--recipe NAME --scale cpu):']
    lines += [f'  {recipe:<14}{_cut(recipe_summary(recipe), WIDTH - 16)}' for recipe in recipe_names()]
    lines += ['', 'example:', f'  {name} photos --time-budget 30m --experiment first', '',
              f'--help-all lists all {len(FLAGS)} flags; --version prints versions.']
    return '\n'.join(lines)


def _row(dest: str) -> str:
    flag = BY_DEST[dest]
    metavar = '' if flag.type is bool else ' ' + (flag.metavar or {int: 'N', float: 'X'}.get(flag.type, 'NAME'))
    return f'  {flag.word + metavar:<22}{_cut(HELP.get(dest, flag.help), WIDTH - 24)}'


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width - 3].rsplit(' ', 1)[0] + ' ...'


class ShortHelp(argparse.Action):
    """`--help`: print one screen and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(short_help())
        parser.exit()


class LongHelp(argparse.Action):
    """`--help-all`: print every flag and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.print_help()
        parser.exit()


def add_help(parser: argparse.ArgumentParser) -> None:
    """Add both to a parser that was made with `add_help=False`."""
    for names, action, text in ((['-h', '--help'], ShortHelp, 'print one screen with what matters most'),
                                (['--help-all'], LongHelp, 'print this list of all flags')):
        parser.add_argument(*names, action=action, nargs=0, dest=argparse.SUPPRESS, help=text)


