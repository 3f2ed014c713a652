"""Look into a vision transformer while it runs: the attention of every block and the tokens that leave it."""
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Reduce = Callable[[torch.Tensor], torch.Tensor]
_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)


def patch_grid(model: Any, image_size: Tuple[int, int]) -> Tuple[int, int]:
    """Return rows and columns of the patches that a vision transformer sees in an image of this height and width.

    Raises:
        ValueError: The model is no sequence of blocks over patches, as timm's vision transformers are.
    """
    if not all(hasattr(model, name) for name in ('blocks', 'patch_embed', 'num_prefix_tokens')):
        raise ValueError(f'{type(model).__name__} has no attention between patches: take a vision transformer '
                         '(vit_*, deit*, beit*, eva02_*).')
    if hasattr(model.patch_embed, 'dynamic_feat_size'):
        return model.patch_embed.dynamic_feat_size(image_size)
    return tuple(model.patch_embed.grid_size)


class Captured:
    """What was seen in the last forward pass.

    Attributes:
        attention: For each block, attention after the softmax (B, H, T, T) in float32, or what `attention=` made of it;
            parallel attentions of one block stand side by side as heads.
        tokens: For each block, the tokens that leave it (B, T, D), or what `tokens=` made of them.
    """

    def __init__(self, blocks: int):
        self._attention: List[List[torch.Tensor]] = [[] for _ in range(blocks)]
        self._tokens: List[Optional[torch.Tensor]] = [None] * blocks

    @property
    def attention(self) -> List[torch.Tensor]:
        empty = [block for block, parts in enumerate(self._attention) if not parts]
        if empty:
            raise ValueError(f'No attention between all tokens was seen in block {empty[0]}.')
        return [parts[0] if len(parts) == 1 else torch.cat(parts, dim=-3) for parts in self._attention]

    @property
    def tokens(self) -> List[torch.Tensor]:
        seen = [tokens for tokens in self._tokens if tokens is not None]
        if len(seen) < len(self._tokens):
            raise ValueError('Not every block has run.')
        return seen


@contextmanager
def capture(
        model: Any,
        attention: Optional[Reduce] = lambda attn: attn,
        tokens: Optional[Reduce] = lambda tokens: tokens,
) -> Iterator[Captured]:
    """Note the attention and the tokens of every block while the model runs inside the context.

    The model computes what it always computes, to the bit: its calls of softmax and of `scaled_dot_product_attention`
    are watched (torch's `TorchFunctionMode`), so that query and key norms, rotary positions and masks are seen as they
    are used. Where attention is fused and its weights never exist, they are computed a second time beside it. (timm's
    `AttentionExtract` finds nothing in models that were built with fused attention.)

    Args:
        model: A timm model with `blocks` (vision transformers), not compiled.
        attention: What to keep of the attention (B, H, T, T) of a block; None looks at none.
        tokens: What to keep of the tokens (B, T, D) that leave a block; None looks at none.

    Yields:
        What is seen; each forward pass takes the place of the one before.

    Raises:
        ValueError: The model has no `blocks`.

    >>> import timm
    >>> model = timm.create_model('test_vit').eval()
    >>> with capture(model) as seen, torch.no_grad():
    ...     scores = model(torch.zeros(1, 3, 160, 160))
    >>> len(seen.attention), tuple(seen.attention[0].shape), tuple(seen.tokens[0].shape)
    (6, (1, 2, 101, 101), (1, 101, 64))
    """
    if not len(getattr(model, 'blocks', ())):
        raise ValueError(f'{type(model).__name__} has no blocks to look into.')
    seen = Captured(len(model.blocks))
    with ExitStack() as stack:
        for number, block in enumerate(model.blocks):
            watch = _Watch(seen._attention[number], attention)
            stack.callback(block.register_forward_pre_hook(watch.enter).remove)
            stack.callback(block.register_forward_hook(watch.leave, always_call=True).remove)
            if tokens is not None:
                stack.callback(block.register_forward_hook(_keep(seen._tokens, number, tokens)).remove)
        yield seen


def _keep(kept: List[Optional[torch.Tensor]], number: int, reduce: Reduce) -> Callable:
    def hook(block: Any, args: Any, output: Any) -> None:
        with torch.no_grad():
            kept[number] = reduce((output[0] if isinstance(output, (tuple, list)) else output).detach())
    return hook


class _Watch(TorchFunctionMode):
    """Sees the attention of one block; active only while that block runs."""

    def __init__(self, kept: List[torch.Tensor], reduce: Optional[Reduce]):
        super().__init__()
        self.kept, self.reduce, self.active = kept, reduce, False

    def enter(self, block: Any, args: Any) -> None:
        self.kept.clear()
        if self.reduce is not None:
            self.__enter__()
            self.active = True

    def leave(self, block: Any, args: Any, output: Any) -> None:
        if self.active:
            self.__exit__(None, None, None)
            self.active = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[Dict[str, Any]] = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            self._see(_weights(*args, **(kwargs or {})))
        elif func in _SOFTMAX:
            self._see(output)
        return output

    def _see(self, attn: torch.Tensor) -> None:
        assert self.reduce is not None
        if attn.ndim == 4 and attn.shape[-1] == attn.shape[-2]:
            with torch.no_grad():
                self.kept.append(self.reduce(attn.detach().float()))


@torch.no_grad()
def _weights(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: Optional[torch.Tensor] = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: Optional[float] = None,
        enable_gqa: bool = False,
) -> torch.Tensor:
    """Return the weights that `scaled_dot_product_attention` uses, in float32 and before its dropout."""
    query, key = query.detach().float(), key.detach().float()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    with torch.autocast(query.device.type, enabled=False):
        scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float('-inf'))
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float('-inf')) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1)
