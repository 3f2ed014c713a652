"""Masked autoencoders: hide most patches of an image, predict their pixels from the others."""
from argparse import Namespace
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import nn

from ..data.loader import Batch
from ..errors import UserError
from ..loss.masked_pixel import masked_pixel_loss, patch_statistics, patchify, unpatchify
from ..models.mae_decoder import MAEDecoder, decoder_size
from ..models.masked_autoencoder import MaskedAutoencoder, check_encoder, fix_positions, initialise
from .base import TaskSetting
from .masking import mask_to_visible, num_visible, random_visible, visible_to_mask
from .wrapping import WrappedModelTask

__all__ = ['MAETask', 'patchify', 'random_visible', 'unpatchify']


class MAETask(WrappedModelTask):
    """Pre-training of a masked autoencoder (He et al., CVPR 2022, https://arxiv.org/abs/2111.06377).

    The encoder, a plain timm ViT without a head, sees the visible patches; a light decoder predicts the pixels of the
    others. `mix` draws the mask, so that `forward` is a function of images and visible places.

    Args:
        model: A `VisionTransformer` of timm; a head that it has is taken off. Its weights stay as they are, see
            `models.masked_autoencoder.initialise`.
        mask_ratio: Share of patches that are hidden.
        norm_pix: Predict each patch less its mean, over its standard deviation.
        pos_embed: 'sincos' writes the fixed table into the encoder's positions and does not train them; 'learned'
            trains the positions that the model has.
        decoder_dim: Width of the decoder; like the next two by default from the encoder (`decoder_size`).
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
        device: Where the task lives.
        dtype: As in timm.
        verbose: As in timm.

    Raises:
        ValueError: The model has no plain ViT tokens, or sizes do not fit each other.

    >>> import timm
    >>> task = MAETask(timm.create_model('test_vit', img_size=32, patch_size=8), verbose=False)
    >>> task(torch.randn(2, 3, 32, 32), torch.tensor([[0, 3, 9, 12], [1, 2, 7, 15]]))['loss'].ndim
    0
    """
    name = 'mae'
    predicted = ('features',)
    supervised = False
    model_name, part_name = 'encoder', 'decoder'

    def __init__(
            self,
            model: nn.Module,
            mask_ratio: float = 0.75,
            norm_pix: bool = True,
            pos_embed: str = 'sincos',
            decoder_dim: Optional[int] = None,
            decoder_depth: Optional[int] = None,
            decoder_heads: Optional[int] = None,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        check_encoder(model)
        encoder: Any = model
        encoder.reset_classifier(0)
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        self.chance = 1.0 if norm_pix else None  # the mean of each patch; flat patches make it less
        self.patch_size = encoder.patch_embed.patch_size[0]
        self.check_size(encoder.patch_embed.img_size)
        if pos_embed not in ('sincos', 'learned'):
            raise ValueError(f"pos_embed must be 'sincos' or 'learned', not {pos_embed!r}.")
        if pos_embed == 'sincos':
            if encoder.embed_dim % 4:
                raise ValueError(
                    f'Sine-cosine positions need a width that is a multiple of 4, not {encoder.embed_dim}: choose '
                    'learned positions.')
            fix_positions(encoder)
        size = decoder_size(encoder.embed_dim, len(encoder.blocks))
        if decoder_dim is not None:
            size.update(dim=decoder_dim, num_heads=max(decoder_dim // 32, 1))
        size.update({k: v for k, v in (('depth', decoder_depth), ('num_heads', decoder_heads)) if v is not None})
        decoder = MAEDecoder(
            encoder.embed_dim, self.patch_size, encoder.num_prefix_tokens, channels=encoder.in_chans, **size)
        initialise(decoder)
        self.trainable_module = MaskedAutoencoder(encoder, decoder).to(device=self.device, dtype=self.dtype)

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'MAETask':
        try:
            task = cls(
                model, args.mae_mask_ratio, args.mae_norm_pix, args.mae_pos_embed, args.mae_decoder_dim,
                args.mae_decoder_depth, args.mae_decoder_heads, device=setting.device, verbose=False)
            for size in {setting.view.size, *(args.train_img_sizes or ())}:
                task.check_size((size, size))
        except ValueError as error:
            raise UserError(f'--task mae with --model {args.model}: {error}') from error
        if not (args.pretrained or args.pretrained_path or args.initial_checkpoint):
            initialise(task.get_eval_model())
        return task

    def check_size(self, size: Tuple[int, int]) -> None:
        """Raise a ValueError where images of this size (height, width) cannot be cut and masked."""
        if size[0] % self.patch_size or size[1] % self.patch_size:
            raise ValueError(
                f'Images of {size[0]} x {size[1]} pixels do not consist of whole patches of {self.patch_size}: change '
                'the image size or the patch size.')
        num_visible((size[0] // self.patch_size) * (size[1] // self.patch_size), self.mask_ratio)

    def notes(self) -> List[str]:
        module = self.unwrapped()
        decoder, shown = module.decoder, num_visible(module.encoder.patch_embed.num_patches, self.mask_ratio)
        return [f'{shown} of {module.encoder.patch_embed.num_patches} patches are visible; decoder {decoder.dim} wide, '
                f'{len(decoder.blocks)} deep, {sum(p.numel() for p in decoder.parameters()) / 1e6:.2f} M parameters']

    def mix(self, batch: Batch) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the images and which of their patches are visible."""
        return batch.views[0], self.draw(batch.views[0])

    def draw(self, images: torch.Tensor) -> torch.Tensor:
        """Draw the visible places (N, K) for images, from torch's global generator on the CPU."""
        rows, columns = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        return random_visible(torch.rand(len(images), rows * columns), self.mask_ratio).to(images.device)

    def seen(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return the images, and what the encoder sees of them: 0, the mean colour, in the hidden patches."""
        images, visible = self.mix(batch)
        patches = patchify(images, self.patch_size)
        hidden = visible_to_mask(visible, patches.shape[1]).unsqueeze(-1)
        grid = self.unwrapped().grid(images)
        return {'image': images, 'seen': unpatchify(patches.masked_fill(hidden, 0.), self.patch_size, grid)}

    def forward(self, input: torch.Tensor, target: Optional[torch.Tensor] = None) -> Dict[str, torch.Tensor]:
        """Compute the loss.

        Args:
            input: Images (N, 3, H, W).
            target: Visible places (N, K), from `mix`. Anything else (class labels of a loop that does not call `mix`)
                is ignored, and the mask is drawn here.

        Returns:
            `loss`.
        """
        visible = target if target is not None and target.ndim == 2 else self.draw(input)
        pred = self.trainable_module(input, visible)
        mask = visible_to_mask(visible, pred.shape[1])
        return {'loss': masked_pixel_loss(pred, input, mask, self.patch_size, self.norm_pix)}

    def predict(self, model: nn.Module, input: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the pooled features of whole images; nothing is masked."""
        return {'features': model(input)}

    @torch.no_grad()
    def reconstruct(
            self,
            images: torch.Tensor,
            mask: Optional[torch.Tensor] = None,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return what the model makes of masked images, and what it saw of them.

        Both are normalised as the images are. With `norm_pix` the network predicts patches of mean 0 and deviation 1;
        mean and deviation of the true patch are put back, so the picture tells a little that the network did not know.

        Args:
            images: (N, 3, H, W).
            mask: (N, L), bool or 0/1, 1 where a patch is hidden, as many in every image; drawn if it is None.

        Returns:
            Two tensors (N, 3, H, W): the images with predictions in the hidden patches (visible ones are not learned,
            so they are shown as they are), and the images with 0, the mean colour, in the hidden patches.
        """
        visible = self.draw(images) if mask is None else mask_to_visible(mask).to(images.device)
        module = self.unwrapped()
        training = module.training
        module.eval()
        pred = module(images, visible).float()
        module.train(training)
        patches = patchify(images.float(), self.patch_size)
        if self.norm_pix:
            mean, deviation = patch_statistics(patches)
            pred = pred * deviation + mean
        hidden = visible_to_mask(visible, patches.shape[1]).unsqueeze(-1)
        shown = (torch.where(hidden, pred, patches), patches.masked_fill(hidden, 0.))
        grid = module.grid(images)
        return unpatchify(shown[0], self.patch_size, grid), unpatchify(shown[1], self.patch_size, grid)

    # --- what timm asks of a task -----------------------------------------------------------------------------------

    def get_clip_parameters(self, exclude_head: bool = False) -> List[nn.Parameter]:
        module = self.unwrapped()
        return list((module.encoder if exclude_head else module).parameters())
