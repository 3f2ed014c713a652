"""Video object segmentation without training: the mask of the first frame is carried on by the likeness of patches.

Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020,
https://arxiv.org/abs/2006.14613, with the numbers of DINO, https://arxiv.org/abs/2104.14294, section 4.2.
"""
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F

_CELLS = 2 ** 24  # of the matrix of affinities that is held at a time


class LabelPropagation:
    """Carries the labels of patches from frame to frame.

    A patch gets the labels of the `top_k` patches that are most like it, in the first frame and the `context` frames
    before, no more than `neighbourhood` rows and columns away; each weighs exp(cosine / temperature).

    Args:
        features: Patches of the first frame (rows, columns, D).
        labels: Their labels (L, rows, columns): shares of each object, the ground first.
        context: Frames before, beside the first.
        top_k: Patches that count.
        neighbourhood: Rows and columns to each side; 0: everywhere.
        temperature: The smaller, the more the most alike counts.

    >>> frame = torch.eye(4).view(2, 2, 4)
    >>> labels = torch.tensor([[[1., 0.], [1., 1.]], [[0., 1.], [0., 0.]]])
    >>> moved = LabelPropagation(frame, labels, top_k=1)(frame.flip(1))
    >>> torch.equal(moved, labels.flip(2))
    True
    """

    def __init__(
            self,
            features: torch.Tensor,
            labels: torch.Tensor,
            context: int = 7,
            top_k: int = 5,
            neighbourhood: int = 12,
            temperature: float = 0.1,
    ):
        if features.shape[:2] != labels.shape[1:]:
            raise ValueError(f'Patches {tuple(features.shape[:2])}, but labels of {tuple(labels.shape[1:])}.')
        self.context, self.top_k, self.neighbourhood = context, top_k, neighbourhood
        self.temperature = temperature
        self.grid = features.shape[:2]
        self.first = self._flat(features), labels.float().flatten(1).T
        self.before: List[Tuple[torch.Tensor, torch.Tensor]] = []

    @staticmethod
    def _flat(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features.float().flatten(0, 1), dim=1)

    def _near(self, start: int, stop: int, device: torch.device) -> Optional[torch.Tensor]:
        """Return which patches of a frame the patches from start to stop may look at (stop - start, patches)."""
        if not self.neighbourhood:
            return None
        index = torch.arange(self.grid[0] * self.grid[1], device=device)
        row, column = index // self.grid[1], index % self.grid[1]
        return ((row[start:stop, None] - row).abs() <= self.neighbourhood) & (
            (column[start:stop, None] - column).abs() <= self.neighbourhood)

    @torch.no_grad()
    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the labels (L, rows, columns) of the next frame's patches (rows, columns, D), and remember them."""
        query = self._flat(features)
        sources = [self.first, *self.before]
        keys, known = torch.cat([source[0] for source in sources]), torch.cat([source[1] for source in sources])
        found = []
        rows = max(1, _CELLS // len(keys))
        for start in range(0, len(query), rows):
            part = query[start:start + rows]
            affinity = part @ keys.T / self.temperature
            near = self._near(start, start + len(part), query.device)
            if near is not None:
                affinity = affinity.masked_fill(~near.repeat(1, len(sources)), float('-inf'))
            values, index = affinity.topk(min(self.top_k, len(keys)), dim=1)
            found.append((values.softmax(1)[:, :, None] * known[index]).sum(1))
        labels = torch.cat(found)
        self.before = [*self.before, (query, labels)][-self.context:] if self.context else []
        return labels.T.unflatten(1, self.grid)


def label_map(labels: torch.Tensor, size: Tuple[int, int]) -> torch.Tensor:
    """Return the object of each pixel (height, width), int64, from shares on patches (L, rows, columns).

    The shares are enlarged bilinearly and each object's are stretched to 0 to 1; the greatest wins.

    >>> label_map(torch.tensor([[[1., 0.2]], [[0., 0.3]]]), (1, 2))
    tensor([[0, 1]])
    """
    large = F.interpolate(labels[None].float(), size=size, mode='bilinear', align_corners=False)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    stretched = (large - low) / (high - low).clamp(min=1e-12)
    return torch.where(high > 0, stretched, large).argmax(0)
