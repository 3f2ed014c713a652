"""Optimizers that timm lacks."""
from .sam import SAM

__all__ = ['SAM']
