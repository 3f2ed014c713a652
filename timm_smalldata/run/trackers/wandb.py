"""Weights & Biases, with timm's flags."""
from typing import Any, Mapping

from .base import Tracker


class WandbTracker(Tracker):
    """A run of `--wandb-project`, tagged and continued as timm's train.py does it."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        import wandb
        args = self.args
        self.wandb: Any = wandb
        wandb.init(
            project=args.wandb_project or args.log_project, name=args.experiment, config=vars(args),
            tags=args.wandb_tags, resume='must' if args.wandb_resume_id else None, id=args.wandb_resume_id or None)

    def log(self, row: Mapping[str, float]) -> None:
        self.wandb.log(dict(row))

    def report(self, numbers: Mapping[str, float]) -> None:
        self.wandb.summary.update(dict(numbers))

    def close(self) -> None:
        self.wandb.finish()
