"""The device that a flag means."""
import os
from typing import Optional

import torch

from .._compat import computes_bfloat16_fast
from ..errors import UserError


def resolve_device(name: str, kept: Optional[str] = None) -> torch.device:
    """Return the device a flag means; a GPU that is not there is an error.

    Args:
        name: Value of the flag.
        kept: Device of the run that is continued: what `auto` means then.
    """
    kept = kept if name == 'auto' else None
    name = kept or name
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name}: no such kind of device; use auto, cpu, cuda, cuda:0 or mps.') from error
    there = {'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available(), 'cpu': True}
    if not there.get(device.type, False) and kept:
        raise UserError(
            f'The run was started on {kept}, and this machine has no such device (or torch cannot use it): continue it '
            'elsewhere, or on another device, with other numbers, by --device cpu --force.')
    if not there.get(device.type, False):
        raise UserError(
            f'--device {name}, but this machine has no such device (or torch cannot use it): use --device cpu.')
    if device.type == 'cuda':
        index = int(os.environ.get('LOCAL_RANK', device.index or 0))
        if index >= torch.cuda.device_count():
            raise UserError(f'--device {name}: this machine has {torch.cuda.device_count()} GPU(s).')
        device = torch.device('cuda', index)
        torch.cuda.set_device(device)
    return device


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 in hardware, so that it is worth using."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == 'cpu' and computes_bfloat16_fast()
