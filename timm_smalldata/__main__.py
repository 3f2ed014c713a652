"""The console command `timm-smalldata VERB ...`; a verb is imported only when it is called."""
import shlex
import sys
from importlib import import_module
from typing import Dict, List, Optional, Tuple

from .errors import UserError, nearest
from .utils.command import command

VERBS: Dict[str, Tuple[str, str]] = {  # verb: module with main(argv), what it does
    'train': ('train_smalldata', 'images to a checked model (the same as train-smalldata)'),
    'predict': ('timm_smalldata.cli.predict', 'say what is on images that nobody has labelled'),
    'eval': ('timm_smalldata.cli.eval', 'judge a finished model on any images'),
    'doctor': ('timm_smalldata.cli.doctor', 'look at images before a training: broken, twice, mislabelled, odd'),
    'report': ('timm_smalldata.cli.report', 'print the report of a finished run again'),
    'push': ('timm_smalldata.cli.push', 'send a finished run to the Hugging Face hub'),
    'export': ('timm_smalldata.cli.export', 'the model as ONNX or torch.export, checked'),
    'benchmark': ('timm_smalldata.cli.benchmark', 'how fast this machine trains a model, and where the time goes'),
    'analyse': ('timm_smalldata.cli.analyse', 'pictures of what a vision transformer does inside'),
    'cache': ('timm_smalldata.cli.cache', 'what decoded images take, and remove them'),
    'completion': ('timm_smalldata.cli.completion', 'a script that lets a shell complete our commands'),
    'experiment': ('timm_smalldata.cli.experiment', 'vary one flag over seeds and compare, with intervals'),
}
ALIASES = {'analyze': 'analyse'}


def usage() -> str:
    """Return the help text."""
    name = shlex.join(command('VERB')[:-1])
    rows = [f'  {verb:<12}{text}' for verb, (_, text) in VERBS.items()]
    return '\n'.join([
        f'usage: {name} VERB ...', '',
        'Train image classifiers from scratch on few or unevenly many images, and judge them.', '',
        'verbs:', *rows, '',
        f'{name} VERB --help tells more; --version prints versions.'])


def main(argv: Optional[List[str]] = None) -> int:
    """Run a verb; returns the exit code (2: the user can put it right, 130: interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = ALIASES.get(argv[0], argv[0]) if argv else ''
    if verb in ('-h', '--help', ''):
        print(usage())
        return 0 if verb else 2
    if verb == '--version':
        from timm_smalldata_cli import version_line
        print(version_line())
        return 0
    from .utils.console import fail
    try:
        if verb not in VERBS:
            raise UserError(f'Unknown verb {verb!r}{nearest(verb, VERBS)}; there are: {", ".join(VERBS)}.')
        return import_module(VERBS[verb][0]).main(argv[1:]) or 0
    except UserError as error:
        return fail(error)
    except SystemExit as stop:  # argparse: --help or a wrong flag
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
