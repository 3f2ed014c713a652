import pytest
import torch

from timm_smalldata.models.mae_decoder import MAEDecoder, decoder_size


def test_parameters_of_the_published_decoder():
    with torch.device('meta'):
        decoder = MAEDecoder(768, 16, **decoder_size(768, 12))
    # ViT-B: 111,907,840 in all, less the encoder and the decoder's table of positions, which is no parameter here
    assert sum(p.numel() for p in decoder.parameters()) == 111_907_840 - 85_798_656 - 197 * 512


@pytest.mark.parametrize('embed_dim', [24, 64, 90, 192, 384, 1280])
@pytest.mark.parametrize('depth', [1, 3, 12, 32])
def test_small_encoders_get_decoders_that_can_be_built(embed_dim, depth):
    size = decoder_size(embed_dim, depth)
    assert size['dim'] % 4 == 0 and size['dim'] == 32 * size['num_heads'] <= 512
    assert 1 <= size['depth'] <= min(depth, 8)


def test_order_of_the_visible_patches_does_not_matter_but_their_place_does():
    torch.manual_seed(0)
    decoder = MAEDecoder(8, 2, num_prefix_tokens=1, dim=16, depth=1, num_heads=2)
    tokens, visible = torch.randn(1, 3, 8), torch.tensor([[4, 1]])
    first = decoder(tokens, visible, (2, 3))
    swapped = decoder(tokens[:, [0, 2, 1]], visible.flip(1), (2, 3))
    torch.testing.assert_close(first, swapped, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(first, decoder(tokens, visible.flip(1), (2, 3)), atol=1e-3)


def test_masked_patches_differ_by_their_position_alone():
    torch.manual_seed(0)
    decoder = MAEDecoder(8, 2, num_prefix_tokens=0, dim=16, depth=0, num_heads=2)  # no block: no word from the others
    one, other = (decoder(torch.randn(1, 1, 8), torch.tensor([[0]]), (2, 2)) for _ in range(2))
    assert torch.equal(one[:, 1:], other[:, 1:]) and not torch.equal(one[:, 0], other[:, 0])
    assert not torch.allclose(one[:, 1], one[:, 2])


def test_widths_that_cannot_be():
    for dim, heads in ((30, 2), (32, 3)):
        with pytest.raises(ValueError, match='multiple of 4 and of the heads'):
            MAEDecoder(8, 2, dim=dim, num_heads=heads)
