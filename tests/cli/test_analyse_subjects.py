"""Masks of generated figures, and reconstructions whose loss is known."""
import pytest
import timm
import torch
from torch import nn

from timm_smalldata.cli.analyse_subjects import figure_masks, reconstructor
from timm_smalldata.data.samples import sample_source
from timm_smalldata.data.views import eval_view
from timm_smalldata.loss.masked_pixel import patch_statistics, patchify
from timm_smalldata.task import MAETask

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_masks_of_figures():
    view = eval_view(64, 1.0, 'bicubic', (0.5,) * 3, (0.5,) * 3)
    source, train = sample_source('shapes', 'test'), sample_source('shapes', 'train')
    masks = figure_masks('sample/shapes', [source.names[7], train.names[3]], view)
    assert torch.equal(masks, torch.stack([torch.as_tensor(source.mask(7) > 0), torch.as_tensor(train.mask(3) > 0)]))
    assert figure_masks('sample/digits', source.names[:1], view) is None


class Predicts(nn.Module):
    """In the place of the network: the true patches, or 0."""

    def __init__(self, network, truth):
        super().__init__()
        self.encoder, self.truth = network.encoder, truth

    def grid(self, images):
        return 4, 4

    def forward(self, images, visible):
        patches = patchify(images, 8)
        mean, deviation = patch_statistics(patches)
        return (patches - mean) / deviation if self.truth else torch.zeros_like(patches)


@pytest.mark.parametrize('truth', [True, False])
def test_reconstructions_whose_loss_is_known(truth):
    model = timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    task = MAETask(model, decoder_depth=1, verbose=False)
    task.trainable_module = Predicts(task.trainable_module, truth)
    predicted, seen, losses, nothing = reconstructor(task)(IMAGES, 0)
    hidden = (patchify(seen, 8) == 0).all(-1)
    assert hidden.sum(1).tolist() == [12] * 3
    if truth:
        torch.testing.assert_close(predicted, IMAGES)
        assert losses == pytest.approx([0] * 3, abs=1e-8)
    else:
        assert losses == nothing == pytest.approx([191 / 192] * 3, abs=1e-4)  # the variance divides by one less
    alone = reconstructor(task)(IMAGES[2:], 2)  # a mask depends on the number of the image alone
    assert torch.equal(alone[1], seen[2:]) and alone[2] == pytest.approx(losses[2:])
    assert not torch.equal(hidden[0], hidden[1])
