#!/usr/bin/env python3
"""Views a second on one thread: image by image, in batches, and torchvision's Pillow transforms, in one run.

    OMP_NUM_THREADS=1 python benchmarks/augment.py            # a table; --json prints JSON, --quick takes seconds

Each way is timed in turn, several times over, and the best time of each counts: on a machine that others use too,
compare the ratios, not the numbers. Images are smooth, of 64 to 96 pixels a side, and lie in memory as uint8.
"""
import argparse
import json
import platform
import time
from typing import Callable, Dict, List

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from timm_smalldata.data.batch_augment import render_batch
from timm_smalldata.data.views import Augment, Crop, Erase, ViewSpec, normalise, render, three_augment
from timm_smalldata.task.idmm import VIEW, multi_crop
from timm_smalldata.utils.random import draw_key, draw_keys

BATCH = 64
CASES: Dict[str, List[ViewSpec]] = {
    'rule, short run, 64 px': [ViewSpec(64, Crop('src'), Augment(None, 0.2))],
    '3-Augment, 32 px': [ViewSpec(32, Crop('rrc'), Augment('3a', 0.3))],
    '3-Augment, 64 px': [ViewSpec(64, Crop('rrc'), Augment('3a', 0.3))],
    '3-Augment, 224 px': [ViewSpec(224, Crop('rrc'), Augment('3a', 0.3))],
    'crop and erasing, 64 px': [ViewSpec(64, erase=Erase(0.25))],
    "IDMM's six crops, 32 px": multi_crop(VIEW.at(32)),
    "IDMM's six crops, 112 px": multi_crop(VIEW),
}


def make_images(count: int) -> List[np.ndarray]:
    rng = np.random.RandomState(0)
    return [np.array(Image.fromarray(rng.randint(0, 256, (12, 12, 3)).astype(np.uint8)).resize(
        tuple(rng.randint(64, 97, 2).tolist()), Image.Resampling.BICUBIC)) for _ in range(count)]


def pillow_pipeline(spec: ViewSpec) -> Callable[[Image.Image], torch.Tensor]:
    """What a user of torchvision writes down: its transforms on Pillow images, Pillow's blur."""
    if spec.augment.auto_augment == '3a':
        return three_augment(spec.size, spec.crop.mode)
    crop, augment = spec.crop, spec.augment
    mode = transforms.InterpolationMode(crop.interpolation)
    chain: List[Callable] = [
        transforms.RandomResizedCrop(spec.size, crop.scale or (0.08, 1.0), interpolation=mode)
        if crop.mode == 'rrc' else transforms.Compose([
            transforms.Resize(spec.size, mode), transforms.RandomCrop(spec.size, 4, padding_mode='reflect')]),
        transforms.RandomHorizontalFlip()]
    jitter = augment.color_jitter
    if jitter:
        strengths = jitter if isinstance(jitter, tuple) else (jitter,) * 3
        prob = 1.0 if augment.color_jitter_prob is None else augment.color_jitter_prob
        chain.append(transforms.RandomApply([transforms.ColorJitter(*strengths)], prob))
    if augment.grayscale_prob:
        chain.append(transforms.RandomGrayscale(augment.grayscale_prob))
    if augment.gaussian_blur_prob:
        from timm_smalldata._compat import augment_op
        chain.append(augment_op('GaussianBlurRand', augment.gaussian_blur_prob, 10))
    chain += [transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
    if spec.erase.prob:
        chain.append(transforms.RandomErasing(spec.erase.prob, value='random'))
    return transforms.Compose(chain)


def ways(specs: List[ViewSpec], images: List[np.ndarray]) -> Dict[str, Callable[[], None]]:
    """Return each way to make all views of a batch, ready for the model."""
    pillow = [Image.fromarray(image) for image in images]
    tensors = [torch.from_numpy(image) for image in images]
    zeros, places = np.zeros(len(images), dtype=int), np.arange(len(images))
    pipelines = [pillow_pipeline(spec) for spec in specs]

    def image_path() -> None:
        for number, spec in enumerate(specs):
            views = torch.stack([render(Image.fromarray(image), spec, draw_key(0, 0, i, number))
                                 for i, image in enumerate(images)])
            if views.dtype == torch.uint8:
                normalise(views, spec.mean, spec.std)

    def batch_path() -> None:
        for number, spec in enumerate(specs):
            render_batch(tensors, spec, draw_keys(0, zeros, places, number))

    def torchvision() -> None:
        for pipeline in pipelines:
            torch.stack([pipeline(image) for image in pillow])

    return dict(image=image_path, batch=batch_path, torchvision=torchvision)


def measure(specs: List[ViewSpec], rounds: int, count: int) -> Dict[str, float]:
    """Return the views a second of each way."""
    made = ways(specs, make_images(count))
    best = dict.fromkeys(made, float('inf'))
    for number in range(rounds + 1):
        for name, way in made.items():
            started = time.process_time()
            way()
            if number:  # the first round warms up
                best[name] = min(best[name], time.process_time() - started)
    return {name: count * len(specs) / seconds for name, seconds in best.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--quick', action='store_true', help='few images, two rounds')
    parser.add_argument('--only', help='cases whose name holds this')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds, count = (2, 8) if args.quick else (7, BATCH)
    found = {name: measure(specs, rounds, count) for name, specs in CASES.items() if (args.only or '') in name}
    if args.json:
        print(json.dumps(dict(machine=platform.processor() or platform.machine(), torch=torch.__version__,
                              batch=count, views_per_second=found), indent=2))
        return 0
    print('| views a second, one thread | image by image | in batches | torchvision on Pillow | batches / image '
          '| batches / torchvision |\n|---|---|---|---|---|---|')
    for name, rates in found.items():
        print(f'| {name} | {rates["image"]:.0f} | {rates["batch"]:.0f} | {rates["torchvision"]:.0f} '
              f'| {rates["batch"] / rates["image"]:.1f} | {rates["batch"] / rates["torchvision"]:.1f} |', flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
