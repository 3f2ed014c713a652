"""The files of a run folder beside weights and results: settings, environment, split, class statistics."""
import itertools
import os
import platform
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping

import torch

from ..build.roles import Data
from ..config.flags import FLAGS
from ..config.tasks import refused_by
from ..data.pixels import PixelRule
from ..data.split_file import write_indices, write_split
from ..errors import UserError
from ..utils.distributed import World
from ..utils.files import remove_orphans, write_csv_atomic, write_json_atomic, write_text_atomic
from ..utils.lock import FolderLock

FILES = ('last.pth.tar', 'model_best.pth.tar', 'summary.csv', 'args.yaml', 'environment.json', 'split.json',
         'class_stats.json', 'report.json', 'per_class.csv', 'confusion.csv', 'starts.txt', 'choice.json')

@contextmanager
def locked(folder: Path, world: World) -> Iterator[None]:
    """Make a run folder and keep it for this run alone.

    Raises:
        UserError: Another run works in it, or nothing can be written.
    """
    lock = FolderLock(folder)

    def take() -> None:
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.take()

    world.first(take)
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Raise a UserError where nothing can be written; remove what a killed process was writing."""
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.write-{os.getpid()}'
        probe.write_bytes(b'')
        probe.unlink()
        remove_orphans(folder)
    for name in FILES:
        if (folder / name).is_dir():
            raise UserError(f'{folder / name} is a folder, and a file of the run belongs there: move it away.')


@contextmanager
def leaving_nothing(output: Path, names: Mapping[str, str]) -> Iterator[None]:
    """Remove the empty folders that a dry run has made: the run's, its stages', OUTPUT and those above it.

    Args:
        output: Folder of runs.
        names: Holds the run's name under `experiment` at the end of the block.
    """
    before = {path for path in (output, *output.parents, *output.glob('*'), *output.glob('*/*')) if path.is_dir()}
    try:
        yield
    finally:
        run = output / names.get('experiment', '')
        made = {path for path in (output, *output.parents, run, *run.glob('*')) if path.is_dir()} - before
        for folder in sorted(made, key=lambda path: -len(path.parts)):
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                continue


def new_name(output: Path, name: str) -> str:
    """Return the name, or with a number behind it where there is a folder of that name, and make its folder."""
    for number in itertools.count(1):
        unique = name if number == 1 else f'{name}-{number}'
        with _told(output / unique):
            try:
                output.mkdir(parents=True, exist_ok=True)
                (output / unique).mkdir()
                return unique
            except FileExistsError:
                if not output.is_dir():
                    raise
    raise AssertionError


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'Cannot write to {folder}: {error.strerror}. Choose another --output.') from error


def environment(device: torch.device, world: World) -> Dict[str, Any]:
    """Return versions and the machine: what a number needs beside it."""
    from importlib.metadata import PackageNotFoundError, version
    versions: Dict[str, Any] = {}
    for name in ('timm-smalldata', 'timm', 'torch', 'torchvision', 'numpy', 'pillow', 'scikit-learn', 'safetensors',
                 'huggingface-hub'):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    if versions['timm-smalldata'] is None:
        from ..version import __version__
        versions['timm-smalldata'] = __version__
    return dict(
        python=platform.python_version(), platform=platform.platform(), processor=processor(), cores=os.cpu_count(),
        threads=torch.get_num_threads(), device=str(device),
        gpu=torch.cuda.get_device_name(device) if device.type == 'cuda' else None,
        processes=world.world_size, versions=versions)


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor()


def write_static(folder: Path, args: Namespace, machine: Dict[str, Any]) -> None:
    """Write `args.yaml` (every setting; a `-c` file for the same run) and `environment.json`."""
    import yaml
    refused = refused_by(args.task)  # a time budget stands there as the epochs that it was measured to be
    values = {flag.dest: getattr(args, flag.dest) for flag in FLAGS if flag.in_file and flag.dest not in refused}
    write_text_atomic(folder / 'args.yaml', yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    write_json_atomic(folder / 'environment.json', machine)


def write_data_files(folder: Path, data: Data, args: Namespace) -> None:
    """Write what was trained on: split, kept images, class statistics (timm's format), bad images."""
    write_split(str(folder / 'split.json'), data.split_names)
    if data.kept is not None:
        write_indices(str(folder / 'train_images.json'), data.kept.tolist(), data.pool_names)
    counts = data.classes.counts
    write_json_atomic(folder / 'class_stats.json', dict(
        dataset=args.dataset or '', split='train', num_samples=sum(counts), num_classes=len(counts), pos_counts=counts,
        class_names=data.classes.names, pixels=PixelRule.of(args).to_dict()))
    if data.bad:
        write_csv_atomic(folder / 'bad_images.csv', ['image', 'reason'], data.bad.items())
