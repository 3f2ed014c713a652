"""Names that timm does not export at a package's top: one place to mend when it moves them, and a test for each."""
from typing import Any

from timm.data.readers.class_map import load_class_map


def reader(name: str) -> Any:
    """Return timm's reader class: 'folder', 'tar' or 'hfds' (which needs the package datasets)."""
    if name == 'folder':
        from timm.data.readers.reader_image_folder import ReaderImageFolder
        return ReaderImageFolder
    if name == 'tar':
        from timm.data.readers.reader_image_in_tar import ReaderImageInTar
        return ReaderImageInTar
    from timm.data.readers.reader_hfds import ReaderHfds
    return ReaderHfds


def generate_readme(*args: Any, **kwargs: Any) -> str:
    """timm's model card text."""
    from timm.models._hub import generate_readme as generate
    return generate(*args, **kwargs)


__all__ = ['generate_readme', 'load_class_map', 'reader']
