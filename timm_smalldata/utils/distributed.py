"""Processes: who am I, and the few words that ranks exchange."""
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, Dict, List

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
            dist.barrier(_patient.get('group'))

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if not self.distributed:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_patient.get('group'))
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
            value.of_rank_0 = True
            raise value
        return value

    def per_machine(self, work: Callable[[], Any]) -> Any:
        """Let the first process of each machine do `work()` and give its result to those of its machine.

        An exception on any machine is raised everywhere.
        """
        outcome: Any = None
        if self.local_rank == 0:
            try:
                outcome = (True, work())
            except Exception as error:
                outcome = (False, error)
        outcomes = self.gather(outcome)
        for found in outcomes:
            if found is not None and not found[0]:
                found[1].of_rank_0 = True  # which says it for all
                raise found[1]
        return outcomes[self.rank - self.local_rank][1]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds on any rank."""
        return any(self.gather(bool(flag)))

    def gather(self, value: Any) -> List[Any]:
        """Return the values of all ranks, in their order, on every rank."""
        if not self.distributed:
            return [value]
        box: List[Any] = [None] * self.world_size
        dist.all_gather_object(box, value, group=_patient.get('group'))
        return box


_patient: Dict[str, Any] = {}  # the group in which one waits for another, however long that reads or decodes images
_joined: List[int] = []  # whether the group is ours to leave; a caller's own group stays


def init_world(device: torch.device) -> World:
    """Join the process group that torchrun's environment describes; a single process joins none."""
    return World() if int(os.environ.get('WORLD_SIZE', 1)) == 1 else join(device)


def join(device: torch.device) -> World:
    """Join the process group of torchrun's environment, even if it has one process."""
    world_size = int(os.environ['WORLD_SIZE'])
    rank, local_rank = int(os.environ['RANK']), int(os.environ.get('LOCAL_RANK', 0))
    if not dist.is_initialized():
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
        _joined.append(rank)
    _patient['group'] = dist.new_group(backend='gloo', timeout=timedelta(days=365))
    return World(rank, world_size, local_rank)


def leave_world(together: bool) -> None:
    """Leave the process group that `init_world` joined: threads of it that live at exit can abort the process.

    Args:
        together: All ranks leave. Where one may leave alone (an error, a signal), NCCL's group stays: it is taken down
            by all ranks together and waits for them, while Gloo's just closes this rank's connections.
    """
    if _joined and dist.is_initialized() and (together or dist.get_backend() == 'gloo'):
        dist.destroy_process_group()
    _joined.clear()
    _patient.clear()


def lost_another(error: Exception) -> bool:
    """Return whether a collective failed because another process has left; asked where an error is met."""
    return bool(_joined) and any(words in str(error) for words in ('closed by peer', 'reset by peer', 'Broken pipe'))


def wait_for_the_end() -> None:
    """Give torchrun the time to end this process because of another one, which has said why."""
    time.sleep(10)  # an interpreter takes seconds to end on a busy machine


def told_by_rank_0(error: Exception) -> bool:
    """Return whether rank 0 says what went wrong; asked by the others, which give it time to.

    Most errors are met by all ranks at once. Then rank 0 says it and ends, and torchrun ends the others while they wait
    here. A rank that lives on has met the error alone, unless rank 0 handed it on.
    """
    wait_for_the_end()
    return getattr(error, 'of_rank_0', False)
