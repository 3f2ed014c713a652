"""Values of flags that know what set them."""
from argparse import Namespace
from typing import Any, Dict, List, Optional

from .flags import BY_DEST

CONTINUED = 'the run that is continued'  # a source: what an earlier start of the run has settled


class Settings:
    """Values by flag, each with what set it; a layer only fills what no earlier (higher) layer has set."""

    def __init__(self) -> None:
        self.values: Dict[str, Any] = {}
        self.sources: Dict[str, str] = {}
        self.notes: List[str] = []
        self.order: List[str] = []

    def layer(self, values: Dict[str, Any], source: str) -> None:
        """Add a lower layer."""
        if source not in self.order:
            self.order.append(source)
        for dest, value in values.items():
            if dest not in self.values:
                self.values[dest], self.sources[dest] = value, source

    def resolve(self, dest: str, value: Any) -> None:
        """Put what `auto` means in its place."""
        self.values[dest] = value
        self.sources.setdefault(dest, 'default')

    def settle(self, dest: str, value: Any, source: str) -> None:
        """Put a value in the place of one that a default has set."""
        self.values[dest], self.sources[dest] = value, source

    def get(self, dest: str, default: Any = None) -> Any:
        """Return a value, or the flag's own default where no layer has set it."""
        value = self.values.get(dest)
        if value is not None:
            return value
        flag = BY_DEST.get(dest)
        return default if flag is None or flag.default is None else flag.default

    def is_set(self, dest: str) -> bool:
        return dest in self.values

    def source(self, dest: str) -> Optional[str]:
        return self.sources.get(dest)

    def below(self, dest: str, other: str) -> bool:
        """Return whether `dest` was set by a lower layer than `other` was."""
        def rank(name: str) -> int:
            source = self.sources.get(name)
            return self.order.index(source) if source in self.order else len(self.order)
        return rank(dest) > rank(other)

    def namespace(self) -> Namespace:
        """Return all flags as plain values (lists and dicts copied), defaults filled in."""
        import copy
        filled = {dest: copy.deepcopy(flag.default) for dest, flag in BY_DEST.items()}
        filled.update(copy.deepcopy({k: v for k, v in self.values.items() if v is not None or k not in filled}))
        return Namespace(**filled)
