"""One rate of stochastic depth in every block."""
import pytest
import timm
import torch

from timm_smalldata.models.stochastic_depth import set_constant_drop_path


@pytest.mark.parametrize('name', ['test_vit', 'test_vit2', 'test_convnext', 'test_resnet'])
def test_every_branch_has_the_rate_and_weights_stay(name):
    from timm.layers import DropPath
    model = timm.create_model(name, drop_path_rate=0.3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    set_constant_drop_path(model, 0.25)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert len(rates) > 1 and set(rates) == {0.25}
    after = timm.create_model(name)
    after.load_state_dict(model.state_dict())  # no name is new
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_a_branch_is_skipped_as_often_as_said():
    torch.manual_seed(0)
    model = set_constant_drop_path(timm.create_model('test_vit', num_classes=0), 0.4).train()
    kept = [model.blocks[0].drop_path1(torch.ones(4000, 1, 1)).count_nonzero().item() for _ in range(2)]
    assert all(abs(k / 4000 - 0.6) < 0.04 for k in kept)  # five standard deviations
    assert (model.eval().blocks[0].drop_path1(torch.ones(9, 1, 1)) == 1).all()


def test_a_model_without_blocks():
    with pytest.raises(ValueError, match='stochastic depth'):
        set_constant_drop_path(timm.create_model('vgg11', num_classes=2), 0.1)
