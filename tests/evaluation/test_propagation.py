"""Labels that are carried on: by a loop over the equation, a figure that moves, what lies too far away."""
import math

import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.evaluation.propagation import LabelPropagation, label_map


def by_loops(query, frames, labels, top_k, neighbourhood, temperature):
    rows, columns, _ = query.shape
    found = torch.zeros(labels[0].shape)
    for i in range(rows):
        for j in range(columns):
            near = [
                (math.exp(float(F.cosine_similarity(query[i, j], frame[a, b], dim=0)) / temperature), known[:, a, b])
                for frame, known in zip(frames, labels) for a in range(rows) for b in range(columns)
                if max(abs(a - i), abs(b - j)) <= neighbourhood]
            best = sorted(near, key=lambda pair: -pair[0])[:top_k]
            found[:, i, j] = sum(weight * label for weight, label in best) / sum(weight for weight, _ in best)
    return found


def test_by_loops_over_the_equation():
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(4, 5, 6, generator=generator) for _ in range(5)]
    first = F.one_hot(torch.randint(0, 3, (4, 5), generator=generator), 3).permute(2, 0, 1).float()
    carry, seen = LabelPropagation(frames[0], first, context=2, top_k=3, neighbourhood=1), [first]
    for place in (1, 2, 3, 4):
        context = range(max(1, place - 2), place)  # the first frame stays, others go after two
        known = by_loops(frames[place], [frames[0], *(frames[i] for i in context)],
                         [first, *(seen[i] for i in context)], 3, 1, 0.1)
        seen.append(carry(frames[place]))
        assert torch.allclose(seen[-1], known, atol=1e-5)


def test_a_scene_that_stands_still_keeps_its_labels():
    generator = torch.Generator().manual_seed(0)
    frame, labels = torch.randn(6, 7, 64, generator=generator), torch.zeros(2, 6, 7)
    labels[1, 2:4, 2:5] = 1
    labels[0] = 1 - labels[1]
    carry = LabelPropagation(frame, labels)
    for _ in range(9):
        assert torch.equal(carry(frame).argmax(0), labels[1].long())


def test_a_figure_is_followed_no_further_than_the_neighbourhood():
    frame = torch.zeros(1, 40, 2)
    frame[..., 0] = 1
    frame[0, 0] = torch.tensor([0., 1.])
    labels = torch.stack([frame[..., 0], frame[..., 1]])
    for far, neighbourhood, followed in ((12, 12, True), (13, 12, False), (39, 0, True)):
        moved = LabelPropagation(frame, labels, top_k=1, neighbourhood=neighbourhood)(frame.roll(far, 1))
        assert (moved[1, 0, far] > 0.5) == followed


def test_the_greatest_stretched_share_wins():
    shares = torch.tensor([[[.9, .8], [.7, .6]], [[.1, .2], [.3, .4]], [[0., 0], [0, 0]]])
    assert label_map(shares, (2, 2)).tolist() == [[0, 0], [1, 1]]  # stretched: 1, .67, .33, 0 and 0, .33, .67, 1
    assert label_map(shares, (8, 8)).shape == (8, 8)
    with pytest.raises(ValueError, match='labels of'):
        LabelPropagation(torch.zeros(2, 2, 3), torch.zeros(1, 3, 2))
