"""What a push sends: every file, with its bytes, searched before anything leaves."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from ..errors import UserError
from ..utils.model_folder import CONFIG, WEIGHTS, find_model
from .card import PICTURE, model_card
from .picture import recall_picture
from .privacy import find_private, private_words
from .story import Story, read_story

README = 'README.md'


@dataclass(frozen=True)
class Parcel:
    """The files of a push.

    Attributes:
        source: The `model/` folder.
        repo_id: `owner/name` on the hub.
        files: Content by name.
        words: How many private words were looked for.
    """
    source: Path
    repo_id: str
    files: Dict[str, bytes]
    words: int

    def without_card(self) -> 'Parcel':
        """Return the parcel for a repository whose README.md stays."""
        files = {name: content for name, content in self.files.items() if name not in (README, PICTURE)}
        return Parcel(self.source, self.repo_id, files, self.words)

    def listing(self, private: bool) -> List[str]:
        """Return a line for each file, and what becomes of them."""
        return [f'to {self.repo_id} ({"private" if private else "public"}), from {self.source}:',
                *(f'  {name:<20}{len(content):>15,} bytes' for name, content in self.files.items()),
                f'  searched for {self.words} private words (user, machine, paths, names of images): none is in there']


def pack(
        folder: Any,
        repo_id: str,
        license: Optional[str] = None,
        data_name: Optional[str] = None,
        allow: Iterable[str] = (),
) -> Parcel:
    """Collect what a push sends: the exported model, its card and a picture.

    Args:
        folder: A run folder or a `model/` folder.
        repo_id: `owner/name` on the hub.
        license: Of the model; None: the card says that there is none.
        data_name: Of the images, for the card.
        allow: Private words that may be sent.

    Raises:
        UserError: There is no complete model, or a file holds something private.
    """
    source = find_model(folder)
    story = read_story(source)
    picture = recall_picture(story.rows, str(story.report.get('split', 'unknown')))
    card = model_card(story, repo_id, license=license, data_name=data_name, picture=picture is not None)
    files = {README: card.encode('utf-8'), **({PICTURE: picture} if picture is not None else {}),
             CONFIG: (source / CONFIG).read_bytes(), WEIGHTS: (source / WEIGHTS).read_bytes()}
    words = words_of(source.parent, story)
    for name, content in files.items():
        word = find_private(name, content, {w: what for w, what in words.items() if w not in set(allow)}, [repo_id])
        if word is not None:
            raise UserError(f'{name} would tell {words[word]} ({word!r}), so nothing was sent. If it is no secret, '
                            f'push with --allow {word!r}.')
    return Parcel(source, repo_id, files, len(words))


def words_of(run: Path, story: Story) -> Dict[str, str]:
    """Return what of a run must not leave this machine."""
    images = {image for names in (story.split.get('split') or {}).values() for image in names}
    return private_words(run, story.settings, sorted(images))
