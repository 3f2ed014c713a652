"""What people call their splits."""
from typing import Optional

ROLES = ('train', 'val', 'test')
SPLIT_WORDS = {
    'train': ('train', 'training'),
    'val': ('val', 'validation', 'valid', 'eval', 'evaluation', 'dev'),
    'test': ('test', 'testing'),
}


def role_of(word: str) -> Optional[str]:
    """Return the role that a word names, in upper or lower case; None for other words.

    >>> role_of('Validation'), role_of('ant')
    ('val', None)
    """
    return next((role for role, words in SPLIT_WORDS.items() if word.lower() in words), None)
