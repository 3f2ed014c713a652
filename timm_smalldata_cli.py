"""The console commands `timm-smalldata` and `train-smalldata`.

They lie outside the package, so that `--version` is answered from the installed metadata before torch and timm load.
"""
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


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


def version_line() -> str:
    """Return our version and those that matter beside it, from what is installed; nothing is imported for that."""
    others = ', '.join(f'{name} {_version(name)}' for name in ('timm', 'torch', 'torchvision'))
    return f'timm-smalldata {_version("timm-smalldata")} ({others}, Python {platform.python_version()})'


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        file = Path(__file__).parent / 'timm_smalldata' / 'version.py'  # a checkout that was not installed
        found = re.search(r"'(.+)'", file.read_text(encoding='utf-8')) if name == 'timm-smalldata' else None
        return found[1] if found else 'not installed'


def _print_version() -> int:
    print(version_line())
    return 0
