"""A process group of one process, NCCL on a GPU: what ranks exchange, and a step of a model under DDP.

    python benchmarks/one_rank.py cuda|cpu
"""
import os
import socket
import sys

import torch

from timm_smalldata.utils import distributed


def free_port() -> int:
    with socket.socket() as place:
        place.bind(('127.0.0.1', 0))
        return place.getsockname()[1]


def main(kind: str) -> int:
    device = torch.device(kind, 0) if kind == 'cuda' else torch.device('cpu')
    os.environ.update(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    world = distributed.join(device)
    backend = torch.distributed.get_backend()
    assert backend == ('nccl' if kind == 'cuda' else 'gloo'), backend
    summed = torch.ones(3, device=device)
    torch.distributed.all_reduce(summed)
    assert summed.tolist() == [1, 1, 1]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2).to(device))
    model(torch.ones(5, 4, device=device)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    box = [{'a': 1}]
    torch.distributed.broadcast_object_list(box, src=0)
    assert world.gather(3) == [3] and box == [{'a': 1}]
    distributed.leave_world(together=True)
    print(f'{backend}: all is well')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
