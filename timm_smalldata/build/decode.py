"""Every file is opened once and every image decoded once; what cannot be read stops the run or is left out."""
from argparse import Namespace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..data.cache import CachedSource, Scan, build_cache, scan, stored_side
from ..data.pixels import PixelRule, grey_range, total
from ..data.source import ImageSource, Subset
from ..errors import UserError
from ..utils.distributed import World

Bar = Callable[[int, str], Any]


def no_bar(total: int, text: str) -> None:
    """Show no progress."""


def scan_all(sources: Sequence[ImageSource], world: World = World(), bar: Bar = no_bar) -> List[Scan]:
    """Open every file once, on the first process."""
    progress = bar(sum(map(len, sources)), 'reading files')
    scans = world.first(lambda: [scan(source, progress) for source in sources])
    if progress is not None:
        progress.close()
    return scans


def pixel_rule(args: Namespace, scans: Sequence[Scan]) -> PixelRule:
    """Return how images are read that are not plain; where no setting says it, the range of grey is that of all."""
    rule, kinds = PixelRule.of(args), total(scanned.kinds for scanned in scans)
    if kinds.deep and rule.grey_range is None:
        rule = PixelRule(rule.alpha, grey_range(kinds.lowest, kinds.highest))
    return rule


def decode_all(
        args: Namespace,
        sources: Sequence[ImageSource],
        scans: Sequence[Scan],
        world: World = World(),
        bar: Bar = no_bar,
        notes: Optional[List[str]] = None,
) -> Tuple[List[ImageSource], Dict[str, str], Optional[int]]:
    """Decode every image once, at the size that the largest image size of the run asks for.

    Args:
        args: `img_size`, `train_img_sizes`, `cache_size`, `cache_dir`, `output`, `on_bad_image`, `alpha` and
            `grey_range`.
        sources: The images.
        scans: What `scan_all` found in them.
        world: This process; the first one decodes.
        bar: Makes a progress bar.
        notes: Where it is said that a cache was damaged.

    Returns:
        The sources decoded, without images that cannot be read; these by name, with the reason; and the shorter side
        that is kept (None: the full size).

    Raises:
        UserError: An image cannot be read and `on_bad_image` is 'stop'.
    """
    rule = pixel_rule(args, scans)
    side = stored_side(list(scans), max([args.img_size, *(args.train_img_sizes or [])]), args.cache_size)
    progress = bar(sum(map(len, sources)), 'decoding')
    bad: Dict[str, str] = {}
    decoded = []
    for source, scanned in zip(sources, scans):
        decoded.append(_decode(args, source, scanned, side, world, progress, bad, rule, [] if notes is None else notes))
    if progress is not None:
        progress.close()
    if bad and args.on_bad_image == 'stop':
        name, reason = next(iter(bad.items()))
        raise UserError(
            f'{len(bad)} image{"s" * (len(bad) > 1)} cannot be read: {name}: {reason}. '
            'Repair or remove it, or leave such files out with --on-bad-image skip.')
    return decoded, bad, side


def _decode(
        args: Namespace,
        source: ImageSource,
        scanned: Scan,
        side: Optional[int],
        world: World,
        progress: Any,
        bad: Dict[str, str],
        rule: PixelRule,
        notes: List[str],
) -> ImageSource:
    folder = Path(args.cache_dir or Path(args.output) / '.cache')
    path, sizes, unreadable = world.first(
        lambda: build_cache(source, scanned, folder, side, progress, rule, notes.append))
    cached = CachedSource(source, path, sizes)
    cached.digests = scanned.digests  # type: ignore[attr-defined]
    bad.update({source.names[i]: reason for i, reason in unreadable.items()})
    if not unreadable:
        return cached
    return Subset(cached, [i for i in range(len(source)) if i not in unreadable])
