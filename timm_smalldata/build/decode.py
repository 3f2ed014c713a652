"""Every file is opened once and every image decoded once; what cannot be read stops the run or is left out.

What is decoded is kept on disk, in memory, or nowhere (`--cache`); pixels, and so the training, are the same.
"""
import hashlib
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..data.cache import CachedSource, build_cache, cache_file, is_there
from ..data.memory import MemoryFolder, free_memory
from ..data.pixels import PixelRule, grey_range, total
from ..data.scan import Scan, scan
from ..data.source import ImageSource, Subset
from ..data.stored import DirectSource, check_images, stored_side
from ..errors import UserError
from ..utils.distributed import World
from ..utils.text import size_of

Bar = Callable[[int, str], Any]
LEFT_FREE = 1 << 30  # bytes of a disk that `--cache auto` does not take


def no_bar(total: int, text: str) -> None:
    """Show no progress."""


@dataclass
class Decoded:
    """What became of the images.

    Attributes:
        sources: Decoded, without images that cannot be read.
        bad: Those, by name, with the reason.
        side: The shorter side that is kept; None: the full size.
        place: Where: 'disk', 'ram' or 'off'.
        text: The same in words.
    """
    sources: List[ImageSource]
    bad: Dict[str, str]
    side: Optional[int]
    place: str
    text: str


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
) -> Decoded:
    """Decode every image once, at the size that the largest image size of the run asks for.

    Args:
        args: `img_size`, `train_img_sizes`, `cache`, `cache_size`, `cache_dir`, `output`, `on_bad_image`, `alpha` and
            `grey_range`.
        sources: The images.
        scans: What `scan_all` found in them.
        world: This process; the first one of each machine decodes.
        bar: Makes a progress bar.
        notes: Where it is said that a cache was damaged.

    Raises:
        UserError: An image cannot be read and `on_bad_image` is 'stop'; there is no room.
    """
    rule = pixel_rule(args, scans)
    side = stored_side(list(scans), max([args.img_size, *(args.train_img_sizes or [])]), args.cache_size)
    folder = Path(args.cache_dir or Path(args.output) / '.cache')
    keeper: List[MemoryFolder] = []  # of this process alone

    def work() -> Tuple[str, str, List[Tuple], List[str]]:
        return _decode_here(args.cache, folder, sources, scans, side, rule, bar, keeper)

    place, text, found, said = world.per_machine(work)
    if notes is not None:
        notes += said
    _same_everywhere(world, found)
    bad: Dict[str, str] = {}
    decoded: List[ImageSource] = []
    for source, scanned, (path, sizes, unreadable) in zip(sources, scans, found):
        kept: Any = DirectSource(source, side, rule) if path is None else CachedSource(source, path, sizes, keeper)
        kept.digests = scanned.digests
        bad.update({source.names[i]: reason for i, reason in unreadable.items()})
        decoded.append(Subset(kept, [i for i in range(len(source)) if i not in unreadable]) if unreadable else kept)
    if bad and args.on_bad_image == 'stop':
        name, reason = next(iter(bad.items()))
        raise UserError(
            f'{len(bad)} image{"s" * (len(bad) > 1)} cannot be read: {name}: {reason}. '
            'Repair or remove it, or leave such files out with --on-bad-image skip.')
    return Decoded(decoded, bad, side, place, text)


def _decode_here(
        wanted: str,
        folder: Path,
        sources: Sequence[ImageSource],
        scans: Sequence[Scan],
        side: Optional[int],
        rule: PixelRule,
        bar: Bar,
        keeper: List[MemoryFolder],
) -> Tuple[str, str, List[Tuple], List[str]]:
    """Decode on this machine; returns the place, words for it, what became of each source, and what is to be said."""
    notes: List[str] = []
    missing = [not is_there(cache_file(folder, scanned, side, rule)) for scanned in scans]
    needed = sum(scanned.decoded_bytes(side) for scanned, lacking in zip(scans, missing) if lacking)
    place = choose_place(wanted, needed, folder, notes)
    if place == 'ram':
        keeper.append(MemoryFolder())
        folder, missing = keeper[0].path, [True] * len(sources)
        needed = sum(scanned.decoded_bytes(side) for scanned in scans)
    images = sum(len(source) for source, lacking in zip(sources, missing) if lacking or place == 'off')
    how = f' {size_of(needed)} to {folder} ({size_of(_free(folder))} free)' if place == 'disk' else (
        f' {size_of(needed)} to memory' if place == 'ram' else ' once, to find bad ones')
    progress = bar(images, f'decoding{how}') if images else None
    found: List[Tuple] = []
    for source, scanned in zip(sources, scans):
        if place == 'off':
            found.append((None, *check_images(source, scanned, side, rule, progress)))
        else:
            found.append(build_cache(source, scanned, folder, side, progress, rule, notes.append))
    if progress is not None:
        progress.close()
    size = sum(3 * int(sizes.prod(axis=1).sum()) for _, sizes, _ in found)
    kept = '' if side is None else f', the shorter side at most {side} px'
    return place, {
        'disk': f'{size_of(size)} decoded in {folder}', 'ram': f'{size_of(size)} decoded in memory',
        'off': 'decoded whenever they are drawn'}[place] + kept, found, notes


def choose_place(wanted: str, needed: int, folder: Path, notes: List[str]) -> str:
    """Return where decoded images are kept: 'disk', 'ram' or 'off'.

    Args:
        wanted: Value of `--cache`: one of these, or 'auto'.
        needed: Bytes that are not yet there.
        folder: Where they would lie on disk.
        notes: Where it is said why `auto` does not take the disk.

    Raises:
        UserError: The place that is wanted has no room.
    """
    free, memory = _free(folder), free_memory()
    if wanted == 'disk' and needed > free:
        raise UserError(f'The decoded images take {size_of(needed)}, and in {folder} {size_of(free)} are free: choose '
                        'another place with --cache-dir, keep them smaller with --cache-size 256, in memory with '
                        '--cache ram, or not at all with --cache off.')
    if wanted == 'ram' and needed > 2 * memory:
        raise UserError(f'The decoded images take {size_of(needed)}, and {size_of(2 * memory)} of memory are free: '
                        'keep them smaller with --cache-size 256, on disk with --cache disk, or not with --cache off.')
    if wanted != 'auto':
        return wanted
    if not needed or needed + LEFT_FREE <= free:
        return 'disk'
    place = 'ram' if needed <= memory else 'off'
    notes.append(f'decoded images take {size_of(needed)}, and in {folder} {size_of(free)} are free: they are '
                 + ('kept in memory (--cache ram)' if place == 'ram' else
                    'not kept, but decoded whenever they are drawn (--cache off)'))
    return place


def _free(folder: Path) -> int:
    """Return the free bytes where a folder is or would be."""
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), Path('/'))
    try:
        return shutil.disk_usage(there).free
    except OSError:  # some network file systems do not tell
        return 1 << 62


def _same_everywhere(world: World, found: Sequence[Tuple]) -> None:
    """Refuse machines that have read different images.

    Raises:
        UserError: They have.
    """
    mine = [(hashlib.sha256(sizes.tobytes()).digest(), sorted(bad)) for _, sizes, bad in found]
    if world.any(world.broadcast(mine) != mine):
        raise UserError('The machines of this run do not hold the same images: copy the data folder of the first one '
                        'to the others.')
