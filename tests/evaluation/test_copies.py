"""Copy detection: descriptors, whitening and precision by the equations."""
import pytest
import torch

from timm_smalldata.evaluation.copies import Whitening, copy_descriptor, copy_precision


def test_a_descriptor_by_the_equation():
    generator = torch.Generator().manual_seed(0)
    token, patches = torch.randn(2, 3, generator=generator), torch.randn(2, 4, 5, 3, generator=generator)
    found = copy_descriptor(token, patches)
    assert torch.equal(found[:, :3], token)
    for image in range(2):
        for dim in range(3):
            values = [max(float(v), 1e-6) ** 4 for v in patches[image, :, :, dim].flatten()]
            assert float(found[image, 3 + dim]) == pytest.approx((sum(values) / 20) ** 0.25, rel=1e-5)


def test_whitened_features_have_equal_variance_in_all_directions():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 3, generator=generator).double() @ torch.tensor(
        [[3., 1, 0], [0, .5, 0], [1, 0, 2]]).double()
    features = features - features.mean(0)
    white = Whitening(features)(features).double()
    assert torch.allclose(white.T @ white / 500, torch.eye(3).double(), atol=1e-5)
    flat = torch.cat([features[:, :2], torch.zeros(500, 1)], dim=1)  # a direction without variance stays finite
    assert Whitening(flat)(flat).isfinite().all()


def test_copies_of_themselves_are_found_and_what_stands_below_is_not():
    generator = torch.Generator().manual_seed(0)
    database = torch.randn(30, 8, generator=generator)
    assert copy_precision(database * 7, database, [[i] for i in range(30)]).eq(1).all()
    cosine = torch.nn.functional.normalize(database, dim=1) @ torch.nn.functional.normalize(database[:1], dim=1).T
    order = cosine[:, 0].argsort(descending=True).tolist()
    by_place = [copy_precision(database[:1], database, [[index]])[0].item() for index in order]
    assert by_place[0] == 1 and by_place[1:20] == pytest.approx([1 / (place + 1) / 2 for place in range(1, 20)])
    assert by_place[20:] == [0] * 10  # beyond the depth
    assert copy_precision(database[:1], database, [[order[0], order[2]]])[0] == pytest.approx((1 + (1/2 + 2/3) / 2) / 2)
    with pytest.raises(ValueError, match='each needs one'):
        copy_precision(database[:1], database, [[]])
