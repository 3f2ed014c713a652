"""timm's own training parts (loader, task, optimizer, schedule, averaging), with this package's loss and sampler.

    python examples/stock_timm_train.py

timm's train.py takes a loss from a closed list and builds its loader without a sampler, so its parts are put together
here as it does: two lines differ. The images are the embedded digits, made long-tailed; twenty seconds on a CPU.
"""
from typing import Any, Dict

import timm
import torch
from timm.data import Mixup, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from torch.utils.data import DataLoader, Dataset

from timm_smalldata import create_loss
from timm_smalldata.data import Subset, class_counts, create_sampler, long_tailed_indices
from timm_smalldata.data.samples import sample_source
from timm_smalldata.evaluation import LongTailEvaluator


class Images(Dataset):
    """Images of a source; timm's create_loader sets the transform."""
    transform: Any = None

    def __init__(self, source: Any):
        self.source, self.targets = source, source.targets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        image, target = self.source.read(index)
        return self.transform(image), target


def main(epochs: int = 8) -> Dict[str, Any]:
    torch.manual_seed(0)
    device, size, batch_size = torch.device('cpu'), (3, 16, 16), 32
    source = sample_source('digits', 'train')
    train = Images(Subset(source, long_tailed_indices(source.targets, imbalance_factor=20)))
    test = Images(sample_source('digits', 'test'))
    counts = class_counts(train)

    loading: Dict[str, Any] = dict(use_prefetcher=False, num_workers=0, persistent_workers=False, device=device)
    stock = create_loader(
        train, size, batch_size, is_training=True, auto_augment='3a', color_jitter=0.3, hflip=0.0, scale=(0.5, 1.0),
        **loading)
    sampler = create_sampler(train.targets, 'sqrt')  # ours, in the place of timm's
    loader = DataLoader(train, batch_size, sampler=sampler, collate_fn=stock.collate_fn, drop_last=True)
    test_loader = create_loader(test, size, 100, crop_pct=1.0, interpolation='bicubic', **loading)

    model = timm.create_model('resnet20_cifar', num_classes=len(counts))
    task = ClassificationTask(model, criterion=create_loss('balanced-bce', counts), device=device, verbose=False)
    task.setup_ema(decay=0.95)
    optimizer = create_optimizer_v2(model, opt='sgd', lr=0.05, weight_decay=1e-3)
    schedule, epochs = create_scheduler_v2(
        optimizer, num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-5, step_on_epochs=False,
        updates_per_epoch=len(loader))
    mixup = Mixup(mixup_alpha=0.1, num_classes=len(counts), label_smoothing=0.0)  # its rows go straight into the loss

    update = 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        task.train()
        for images, labels in loader:
            result = task(*mixup(images.to(device), labels.to(device)))
            optimizer.zero_grad()
            result['loss'].backward()
            optimizer.step()
            update += 1
            task.update_ema(step=update)
            schedule.step_update(update)
        print(f'epoch {epoch}: loss {result["loss"].item():.3f}')

    evaluator = LongTailEvaluator(counts, device=device)
    judged = task.get_eval_model(ema=True)
    judged.eval()
    with torch.no_grad():
        for images, labels in test_loader:
            evaluator.update(judged(images.to(device)), labels.to(device))
    metrics = evaluator.compute()
    print(', '.join(f'{name} {metrics[name]:.1f}' for name in ('top1', 'balanced_top1', 'medium', 'few')))
    return metrics


if __name__ == '__main__':
    main()
