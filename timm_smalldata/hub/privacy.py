"""Nothing private leaves this machine: what is to be sent is searched for what only this machine knows."""
import getpass
import json
import platform
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

# Names of users and machines that are no secret, and words that a card may hold anyway.
COMMON = frozenset((
    'admin', 'app', 'data', 'debian', 'docker', 'guest', 'head', 'home', 'images', 'jovyan', 'localhost', 'model',
    'none', 'root', 'runner', 'test', 'timm', 'train', 'ubuntu', 'user', 'username', 'vit', 'work'))
IMAGE = 'the name of an image'
SHORT = 6  # bytes; a shorter word stands in large binary files by chance


def private_words(run: Path, settings: Mapping[str, Any], images: Iterable[str]) -> Dict[str, str]:
    """Return what must not leave, and what it is.

    Args:
        run: Run folder.
        settings: Of the run.
        images: Names of its images, which may have folders in them.
    """
    words: Dict[str, str] = {}
    for image in images:
        for word in (image, re.split(r'[\\/]', image)[-1]):
            if len(word) >= SHORT and re.search('[A-Za-z]', word):  # a bare number is no name
                words[word] = IMAGE
    for name, what in ((_user(), 'your user name'), (platform.node(), 'the name of this machine')):
        if name and name.lower() not in COMMON:
            words[name] = what
    data = settings.get('data_dir')
    places = [(Path.home(), 'your home folder'), (run.resolve(), 'the path of the run'), (Path.cwd(), 'a path')]
    if data:
        places.append((Path(data).resolve(), 'the path of the images'))
        if len(Path(data).parts) > 1:
            words[str(data)] = 'the path of the images'
    words.update({str(place): what for place, what in places if place != place.parent})
    return {word: what for word, what in words.items() if len(word) > 2}


def find_private(name: str, content: bytes, words: Mapping[str, str], public: Iterable[str] = ()) -> Optional[str]:
    """Return the first private word in a file; None for none.

    Of weights the names of the tensors are searched for all words, and the numbers only for words that do not come
    about by chance. A word counts where it stands alone, not as part of another.

    Args:
        name: Of the file.
        content: Its bytes.
        words: What is private.
        public: Texts that are no secret, wherever they stand.
    """
    if name.endswith('.safetensors'):
        end = 8 + int.from_bytes(content[:8], 'little')
        return _find(content[8:end].decode('utf-8'), words, public) or _find_bytes(content, words)
    try:
        text = content.decode('utf-8')
    except UnicodeDecodeError:
        return _find_bytes(content, words)
    if name.endswith('.json'):  # paths and letters may be escaped there
        text = '\n'.join(_texts(json.loads(text)))
    return _find(text, words, public)


def _find(text: str, words: Mapping[str, str], public: Iterable[str]) -> Optional[str]:
    for phrase in sorted(public, key=len, reverse=True):
        text = text.replace(phrase, ' ')
    for word in words:
        if word in text and re.search(rf'(?<![\w.-]){re.escape(word)}(?![\w-])', text):
            return word
    return None


def _find_bytes(content: bytes, words: Mapping[str, str]) -> Optional[str]:
    chief = (word for word, what in words.items() if what != IMAGE)
    return next((word for word in chief if len(word.encode()) >= SHORT and word.encode() in content), None)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    parts: List[Any] = list(value) if isinstance(value, list) else []
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    for part in parts:
        yield from _texts(part)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ''


