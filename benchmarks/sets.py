"""The image folders of docs/first-result.md, as hard links into folders of public data.

    python benchmarks/sets.py OUT --flowers DIR --cifar10 DIR --tiny-imagenet DIR

Each DIR holds SPLIT/CLASS/IMAGE, file names in the official order: Flowers-102 with the splits train, val and test,
CIFAR-10 with train and test, Tiny ImageNet with train and val. Makes under OUT, each with `train` and `test`:

- flowers: train and val of Flowers-102 together, 2,040 images of 102 classes;
- photos900: of the 30 flowers with the most images 75 to 7 drawn for training, 880 in all, and 40 at most of the others
  for test;
- cifar: the first 1,000 training images of each class;
- cifarlt: of those the first 1,000 to 10, the classes in the order of their names (factor 100);
- tiny: the first 100 training images of each of the 200 classes.
"""
import argparse
import os
import random
from pathlib import Path
from typing import Iterable, List

from timm_smalldata.data import long_tailed_counts


def classes(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def images(*folders: Path) -> List[Path]:
    return [path for folder in folders for path in sorted(folder.iterdir())]


def link(paths: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if not (folder / path.name).exists():
            os.link(path, folder / path.name)


def flowers(source: Path, out: Path) -> None:
    names = classes(source / 'train')
    every = {name: [*sorted(images(source / 'train' / name, source / 'val' / name), key=lambda path: path.name),
                    *images(source / 'test' / name)] for name in names}
    for name in names:
        link(images(source / 'train' / name, source / 'val' / name), out / 'flowers/train' / name)
        link(images(source / 'test' / name), out / 'flowers/test' / name)
    most = sorted(names, key=lambda name: (-len(every[name]), name))[:30]
    random.Random(0).shuffle(most)
    for i, name in enumerate(most):
        paths, count = every[name], round(75 * (7.2 / 75) ** (i / 29))
        random.Random(name).shuffle(paths)
        link(paths[:count], out / 'photos900/train' / name)
        link(paths[count:count + 40], out / 'photos900/test' / name)


def cifar10(source: Path, out: Path) -> None:
    names = classes(source / 'train')
    for name, count in zip(names, long_tailed_counts(10, 1000, 100)):
        paths = images(source / 'train' / name)
        link(paths[:1000], out / 'cifar/train' / name)
        link(paths[:count], out / 'cifarlt/train' / name)
        for data in ('cifar', 'cifarlt'):
            link(images(source / 'test' / name), out / data / 'test' / name)


def tiny_imagenet(source: Path, out: Path) -> None:
    for name in classes(source / 'train'):
        link(images(source / 'train' / name)[:100], out / 'tiny/train' / name)
        link(images(source / 'val' / name), out / 'tiny/test' / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('--flowers', type=Path)
    parser.add_argument('--cifar10', type=Path)
    parser.add_argument('--tiny-imagenet', type=Path)
    args = parser.parse_args()
    for make, source in ((flowers, args.flowers), (cifar10, args.cifar10), (tiny_imagenet, args.tiny_imagenet)):
        if source:
            make(source, args.out)


if __name__ == '__main__':
    main()
