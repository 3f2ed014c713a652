"""The one exception that a user is meant to read."""
from difflib import get_close_matches
from typing import Iterable


class UserError(Exception):
    """Something the user can put right; the message is one line: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class StorageError(UserError):
    """A disk took no more: what was saved before is whole, and the run can go on when there is space again."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.55) -> str:
    """Return `` (did you mean 'x'?)`` for a near miss, else an empty string.

    >>> nearest('balnced-bce', ['balanced-bce', 'ce'])
    " (did you mean 'balanced-bce'?)"
    """
    matches = get_close_matches(str(name), list(known), n=2, cutoff=cutoff)
    return ' (did you mean ' + ' or '.join(repr(m) for m in matches) + '?)' if matches else ''
