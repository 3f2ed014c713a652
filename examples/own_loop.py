"""A plain PyTorch loop: a timm model, and this package's loss, sampler, augmentation and evaluator.

    python examples/own_loop.py

The images are the embedded digits, made long-tailed (20 to 1); twenty seconds on a CPU.
"""
from typing import Any, Dict

import timm
import torch
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from timm_smalldata import create_loss
from timm_smalldata.data import ClassBalancedSampler, Subset, class_counts, long_tailed_indices, three_augment
from timm_smalldata.data.samples import sample_source
from timm_smalldata.evaluation import LongTailEvaluator

SIZE = 16  # pixels


class Images(Dataset):
    """Images of a source through a transform."""

    def __init__(self, source: Any, transform: Any):
        self.source, self.transform, self.targets = source, transform, source.targets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        image, target = self.source.read(index)
        return self.transform(image), target


def main(epochs: int = 12) -> Dict[str, Any]:
    torch.manual_seed(0)
    source = sample_source('digits', 'train')
    source = Subset(source, long_tailed_indices(source.targets, imbalance_factor=20))
    train = Images(source, three_augment(SIZE, crop='src', hflip=0.0))
    test = Images(sample_source('digits', 'test'), create_transform(SIZE, crop_pct=1.0))
    counts = class_counts(train)

    model = timm.create_model('resnet20_cifar', num_classes=len(counts))
    criterion = create_loss('balanced-softmax', counts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    sampler = ClassBalancedSampler(train.targets, power=0.5)  # 0: every image alike, 1: every class alike
    loader = DataLoader(train, batch_size=32, sampler=sampler)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(loader))

    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # the order is a function of (seed, epoch)
        model.train()
        for images, labels in loader:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f'epoch {epoch}: loss {loss.item():.3f}')

    evaluator = LongTailEvaluator(counts)  # the training counts: they say which classes are many, medium and few
    model.eval()
    with torch.no_grad():
        for images, labels in DataLoader(test, batch_size=100):
            evaluator.update(model(images), labels)
    metrics = evaluator.compute()
    print(', '.join(f'{name} {metrics[name]:.1f}' for name in ('top1', 'balanced_top1', 'medium', 'few')))
    return metrics


if __name__ == '__main__':
    main()
