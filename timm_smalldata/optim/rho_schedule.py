"""The radius of sharpness-aware minimisation by epoch: constant, or in steps as it grows on long tails.

A function of the epoch alone, so a resumed run is where an undisturbed one would be. A radius that grows in steps is
used on long tails by Rangwani et al., NeurIPS 2022, https://arxiv.org/abs/2212.13827.
"""
import re
from dataclasses import dataclass, field
from typing import Dict


@dataclass(frozen=True)
class RhoSchedule:
    """Radius of SAM by epoch; false where SAM is off in every epoch.

    Attributes:
        steps: First epoch of each radius, and the radius from there on.

    >>> schedule = RhoSchedule.parse('0:0.05 5:0.1')
    >>> schedule.at(4), schedule.at(5), schedule.largest
    (0.05, 0.1, 0.1)
    """
    steps: Dict[int, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> 'RhoSchedule':
        """Read EPOCH:RHO words, each of which holds from its epoch on.

        Raises:
            ValueError: The text is no such schedule.
        """
        steps: Dict[int, float] = {}
        for word in text.split():
            match = re.fullmatch(r'(\d{1,9}):(\d+\.?\d*|\.\d+)', word, re.ASCII)
            if match is None:
                raise ValueError(f'{word!r} is no epoch with a rho of at least 0')
            epoch = int(match[1])
            if steps and epoch <= max(steps):
                raise ValueError(f'epoch {epoch} comes after epoch {max(steps)}')
            steps[epoch] = float(match[2])
        if 0 not in steps:
            raise ValueError('it does not say what holds from epoch 0 on')
        return cls(steps if any(steps.values()) else {})

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def largest(self) -> float:
        return max(self.steps.values(), default=0.0)

    @property
    def last_change(self) -> int:
        """Epoch of the last radius; 0 without one."""
        return max(self.steps, default=0)

    def at(self, epoch: int) -> float:
        """Return the radius of an epoch; 0 where SAM is off."""
        return ([0.0] + [rho for first, rho in self.steps.items() if first <= epoch])[-1]

    def cost(self, epoch: int) -> float:
        """Return what an update of this epoch costs, as a share of the most: half where SAM pauses."""
        return 0.5 if self.steps and not self.at(epoch) else 1.0
