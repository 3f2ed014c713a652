"""Losses, data, tasks and one train script for timm: vision transformers from scratch on few or uneven images.

Importing this package registers its models with timm. Everything else is loaded when it is first used.
"""
from typing import Any

from . import models  # noqa: F401  (registration)
from .version import __version__

_LAZY = {'create_loss': 'loss', 'create_task': 'task', 'load': 'build.predict'}
__all__ = ['__version__', 'create_loss', 'create_task', 'load']


def __getattr__(name: str) -> Any:
    from importlib import import_module
    if name in _LAZY:
        return getattr(import_module(f'.{_LAZY[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
