"""Optimizers that timm lacks."""
from .rho_schedule import RhoSchedule
from .sam import SAM

__all__ = ['SAM', 'RhoSchedule']
