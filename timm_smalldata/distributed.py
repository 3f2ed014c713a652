"""Processes: who am I, and the few words that ranks exchange."""
from dataclasses import dataclass
from typing import Any, List

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process among all."""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def primary(self) -> bool:
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        return self.world_size > 1

    def barrier(self) -> None:
        if self.distributed:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if not self.distributed:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def first(self, work: Any) -> Any:
        """Let rank 0 do `work()` and give everyone its result; an exception there is raised everywhere."""
        outcome: Any = None
        if self.primary:
            try:
                outcome = (True, work())
            except Exception as error:  # carried to the other ranks, so that none waits for ever
                outcome = (False, error)
        done, value = self.broadcast(outcome)
        if not done:
            raise value
        return value

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds on any rank."""
        if not self.distributed:
            return flag
        box: Any = [None] * self.world_size
        dist.all_gather_object(box, bool(flag))
        return any(box)


_joined: List[int] = []  # whether the group is ours to leave; a caller's own group stays


def init_world(device: torch.device) -> World:
    """Join the process group that torchrun's environment describes; a single process joins none."""
    import os
    world_size = int(os.environ.get('WORLD_SIZE', 1))
    if world_size == 1:
        return World()
    rank, local_rank = int(os.environ['RANK']), int(os.environ.get('LOCAL_RANK', 0))
    if not dist.is_initialized():
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
        _joined.append(rank)
    return World(rank, world_size, local_rank)


def leave_world() -> None:
    """Leave the process group that `init_world` joined: threads of it that live at exit can abort the process."""
    if _joined and dist.is_initialized():
        dist.destroy_process_group()
    _joined.clear()
