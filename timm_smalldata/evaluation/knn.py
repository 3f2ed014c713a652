"""Weighted nearest neighbours: what features are worth, without training anything on them."""
from typing import Optional

import torch
import torch.nn.functional as F

_CELLS = 2 ** 26  # of the matrix of cosines that is held at a time: 256 MiB


@torch.no_grad()
def knn_predict(
        train_features: torch.Tensor,
        train_labels: torch.Tensor,
        test_features: torch.Tensor,
        num_classes: int,
        k: int = 20,
        temperature: float = 0.07,
        chunk_size: Optional[int] = None,
) -> torch.Tensor:
    """Let the nearest training images vote for their classes, each with exp(cosine / temperature).

    Instance discrimination (Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4), with the numbers that
    DINO (https://arxiv.org/abs/2104.14294) takes. Lengths of features do not matter. Computed in float32.

    Args:
        train_features: Features (M, D) of the images that vote.
        train_labels: Their classes (M,). A class without an image gets no vote.
        test_features: Features (N, D) of the images that are judged.
        num_classes: C.
        k: Number of neighbours; all M where there are fewer.
        temperature: The smaller, the more the nearest ones count.
        chunk_size: Rows of `test_features` at a time; by default as many as fit into 256 MiB.

    Returns:
        Scores (N, C), 0 or more, on the device of `test_features`. In each row those of the votes are divided by that
        of the nearest image, so that they cannot overflow: divided by their sum they are shares of the vote.

    Raises:
        ValueError: Shapes do not fit, there is no training image, a label is no class, `k` or `temperature` is not
            positive.

    >>> train = torch.tensor([[1., 0.], [0., 1.], [0., 2.]])
    >>> knn_predict(train, torch.tensor([0, 1, 1]), torch.tensor([[3., 1.]]), 2, k=1)
    tensor([[1., 0.]])
    """
    check_features(train_features, train_labels, test_features, num_classes)
    if k < 1 or not temperature > 0:
        raise ValueError(f'k must be at least 1 and temperature positive, got {k} and {temperature}.')
    device = test_features.device
    scores = torch.zeros(len(test_features), num_classes, device=device)
    with torch.autocast(device.type, enabled=False):
        train = F.normalize(train_features.to(device).float(), dim=1)
        labels = train_labels.to(device)
        rows = chunk_size or max(1, min(4096, _CELLS // len(train)))
        for features, part in zip(test_features.split(rows), scores.split(rows)):
            cosine, nearest = (F.normalize(features.float(), dim=1) @ train.T).topk(min(k, len(train)), dim=1)
            votes = ((cosine - cosine[:, :1]) / temperature).exp()
            for neighbour in range(votes.shape[1]):  # one vote per row at a time: the same sum on every device
                column = slice(neighbour, neighbour + 1)
                part.scatter_add_(1, labels[nearest[:, column]], votes[:, column])
    return scores


def check_features(
        train_features: torch.Tensor, train_labels: torch.Tensor, test_features: torch.Tensor, num_classes: int,
) -> None:
    """Raise a ValueError where shapes do not fit, nothing is there to learn from, or a label is no class."""
    shapes = [tuple(x.shape) for x in (train_features, train_labels, test_features)]
    if train_features.ndim != 2 or train_labels.shape != train_features.shape[:1] or (
            test_features.ndim != 2 or test_features.shape[1] != train_features.shape[1]):
        raise ValueError(
            'Expected train_features (M, D), train_labels (M,) and test_features (N, D), got {}, {} and {}.'.format(
                *shapes))
    if not len(train_features):
        raise ValueError('There is no training image to compare with.')
    low, high = int(train_labels.min()), int(train_labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f'train_labels must lie in 0..{num_classes - 1}, got {low}..{high}.')
