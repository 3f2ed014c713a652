"""First filters made of the images: principal directions, what a convolution begins with, and the flag."""
from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
from sklearn.decomposition import PCA

import train_smalldata
from timm_smalldata.build.stem import first_convolution, initialise_stem
from timm_smalldata.errors import UserError
from timm_smalldata.models.whitening import principal_directions, whiten_


@pytest.fixture
def images():
    smooth = torch.nn.functional.avg_pool2d(torch.randn(40, 3, 20, 24), 3, 1)
    return smooth * torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1) + 0.3


def test_directions_are_those_of_scikit_learn(images):
    patches = np.lib.stride_tricks.sliding_window_view(images.numpy(), (3, 2), axis=(2, 3))
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 18)
    expected = PCA().fit(rows)
    found = principal_directions(images, 3, 2).flatten(1).numpy()
    assert np.all(np.diff(expected.explained_variance_) < -1e-4)  # so that each direction is determined
    np.testing.assert_allclose(np.abs((found * expected.components_).sum(1)), 1, atol=1e-3)
    assert np.all(np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1) > 0)


def test_a_convolution_answers_with_white_noise(images):
    conv = torch.nn.Conv2d(3, 12, 3, bias=False)
    norm = conv.weight.flatten(1).norm(dim=1).mean().item()
    whiten_(conv, images)
    torch.testing.assert_close(conv.weight[:6], -conv.weight[6:])
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((12,), norm))
    answers = conv(images)[:, :6].transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(answers) - torch.eye(6)
    assert correlation.abs().max() < 0.01


def test_filters_beyond_the_directions_stay(images):
    conv = torch.nn.Conv2d(3, 70, 3)
    before = conv.weight.detach().clone()
    whiten_(conv, images)
    assert torch.equal(conv.weight[54:], before[54:]) and not torch.equal(conv.weight[53], before[53])


def test_grey_images_have_grey_directions(images):
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    directions = principal_directions(grey, 3, 3)
    assert len(directions) == 9
    torch.testing.assert_close(directions[:, 0], directions[:, 2], atol=1e-4, rtol=0)


@pytest.mark.parametrize('shape, message', [((2, 1, 9, 9), 'channels'), ((2, 3, 2, 9), 'smaller than filters')])
def test_images_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        whiten_(torch.nn.Conv2d(3, 4, 3), torch.rand(shape))


@pytest.mark.parametrize('model, there', [
    ('resnet10t', True), ('vit_pico_convstem', True), ('vit_tiny_patch16_224', True), ('vit_tiny_r_s16_p8_224', True)])
def test_the_first_convolution(model, there):
    assert (first_convolution(timm.create_model(model)) is not None) is there


def test_the_flag(tmp_path, photos):
    words = [
        str(photos), '--model', 'vit_pico_convstem', '--model-kwargs', 'patch_size=8', '--img-size', '32',
        '--epochs', '1', '--batch-size', '4', '--lr', '0', '--opt', 'sgd', '--output', str(tmp_path)]
    firsts = {}
    for name in ('random', 'whitening'):
        assert train_smalldata.main([*words, '--stem-init', name, '--experiment', name]) == 0
        model = timm.create_model(f'local-dir:{tmp_path / name / "model"}', pretrained=True)
        firsts[name] = first_convolution(model).weight.detach()
    number = len(firsts['whitening']) // 2
    torch.testing.assert_close(firsts['whitening'][:number], -firsts['whitening'][number:])
    assert (firsts['random'][:number] + firsts['random'][number:]).abs().max() > 0.1


def test_a_model_without_such_a_convolution():
    args = Namespace(stem_init='whitening', initial_checkpoint='', pretrained=False, model='linear')
    with pytest.raises(UserError, match='linear does not begin with a plain convolution'):
        initialise_stem(args, torch.nn.Linear(2, 2), None, None)
