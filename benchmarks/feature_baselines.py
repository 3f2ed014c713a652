"""What features have to beat: nearest neighbours on a colour histogram, and on features of an untrained network.

    python benchmarks/feature_baselines.py flowers --train train val --test test --size 32 \
        --model vit_tiny_patch16_224 patch_size=8 embed_dim=96 num_heads=4 depth=6

The split folders hold a folder per class. Top-1 in percent with Wilson's interval, for several k; the vote is that of
`--probe knn`.
"""
import argparse
import ast
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform

from timm_smalldata.evaluation import wilson_interval
from timm_smalldata.evaluation.knn import knn_predict


def histogram(image: Image.Image, bins: int = 8) -> torch.Tensor:
    """Return the square roots of a joint RGB histogram: cosines of these are Bhattacharyya coefficients."""
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(-1, 3).long() * bins // 256
    cells = (levels * torch.tensor([bins * bins, bins, 1])).sum(1)
    return torch.bincount(cells, minlength=bins ** 3).float().sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--train', nargs='+', default=['train'])
    parser.add_argument('--test', nargs='+', default=['test'])
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--model', nargs='+', default=['vit_tiny_patch16_224'])
    parser.add_argument('--seeds', type=int, default=3)
    args = parser.parse_args()
    names = sorted({path.name for split in args.train for path in (args.folder / split).iterdir()})
    files = {
        part: [(file, names.index(label.name)) for split in splits for label in sorted((args.folder / split).iterdir())
               for file in sorted(label.iterdir())]
        for part, splits in (('train', args.train), ('test', args.test))}
    images = {part: [Image.open(file).convert('RGB') for file, _ in rows] for part, rows in files.items()}
    labels = {part: torch.tensor([label for _, label in rows]) for part, rows in files.items()}
    print(f'{len(images["train"])} training images, {len(images["test"])} test images, {len(names)} classes')
    features = {part: torch.stack([histogram(image) for image in images[part]]) for part in images}
    show('colour histogram', features, labels, names)
    transform = create_transform((3, args.size, args.size), crop_pct=1.0, interpolation='bicubic')
    kwargs = {key: ast.literal_eval(value) for key, value in (word.split('=') for word in args.model[1:])}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        model = timm.create_model(args.model[0], num_classes=0, img_size=args.size, **kwargs).eval()
        with torch.no_grad():
            features = {
                part: torch.cat([model(torch.stack([transform(image) for image in images[part][at:at + 256]]))
                                 for at in range(0, len(images[part]), 256)])
                for part in images}
        show(f'untrained network, seed {seed}', features, labels, names)


def show(what: str, features: dict, labels: dict, names: list) -> None:
    cells = []
    for k in (1, 5, 20):
        guess = knn_predict(features['train'], labels['train'], features['test'], len(names), k=k).argmax(1)
        hits, number = int((guess == labels['test']).sum()), len(guess)
        low, high = wilson_interval(hits, number)
        cells.append(f'k={k}: {100 * hits / number:.1f} ({100 * low:.1f} to {100 * high:.1f})')
    print(f'{what:<28}' + '   '.join(cells))


if __name__ == '__main__':
    main()
