"""Another sampler in timm's loader: what it draws, and that all else stays."""
import pytest
import torch
from timm.data import create_dataset, create_loader
from torch.utils.data import DataLoader

from timm_smalldata.data import ClassBalancedSampler, dataset_targets, replace_sampler


@pytest.mark.parametrize('prefetcher', [False, True])
def test_in_timms_loader(photo_folder, tmp_path, prefetcher):
    dataset = create_dataset('', root=photo_folder('photos', {'ant': 12, 'bee': 4, 'cat': 2}))
    loader = create_loader(
        dataset, (3, 32, 32), 4, is_training=True, use_prefetcher=prefetcher, num_workers=0,
        persistent_workers=False, device=torch.device('cpu'), re_prob=0.5)
    sampler = ClassBalancedSampler(dataset_targets(dataset), num_samples=300, seed=1)
    new = replace_sampler(loader, sampler)
    assert type(new) is type(loader) and (new is loader) == prefetcher and new.sampler is sampler
    assert len(new) == 75 and new.dataset is dataset
    labels = torch.cat([target for _, target in new])
    assert all(70 < count < 130 for count in labels.bincount().tolist())  # three deviations around 100
    sampler.set_epoch(1)
    images, _ = next(iter(new))
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32


def test_in_torchs_loader():
    loader = replace_sampler(DataLoader(list(range(6)), batch_size=2, drop_last=True), ClassBalancedSampler([0] * 6))
    assert len(loader) == 3 and loader.drop_last
