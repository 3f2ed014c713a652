"""The console commands `timm-smalldata` and `train-smalldata`.

They lie outside the package, so that `--version` is answered from the installed metadata before torch and timm load.
"""
import sys
from importlib.metadata import version


def timm_smalldata() -> int:
    """Run `timm-smalldata VERB ...`; returns the exit code."""
    if sys.argv[1:2] == ['--version']:
        return _print_version()
    from timm_smalldata.__main__ import main
    return main()


def train_smalldata() -> int:
    """Run `train-smalldata ...`, the verb `train`; returns the exit code."""
    if sys.argv[1:2] == ['--version']:
        return _print_version()
    from train_smalldata import main
    return main()


def _print_version() -> int:
    print(f'timm-smalldata {version("timm-smalldata")}')
    return 0
