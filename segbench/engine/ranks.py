"""Several processes that train one network: who of them I am, and what we add up.

The global batch is split among the ranks; the loss is the loss of the *global* batch on every rank (its sums
are added up before ratios are taken), so the numbers do not depend on how many ranks share the work, except
for the order of sums. Only rank 0 writes.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["ALONE", "Ranks", "process_group"]

LEAVE_S = 10.0
"""Seconds that a rank which failed gives the others to let it go."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among those that train one network.

    Attributes:
        rank: From 0.
        world: How many.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints and records."""
        return self.rank == 0

    @property
    def total(self) -> Callable[[Tensor], Tensor] | None:
        """Sum of a tensor over the ranks, for the loss; None when alone."""
        return None if self.world == 1 else total_over_ranks

    def largest(self, *values: int, device: torch.device) -> list[int]:
        """The largest of each value over the ranks; the same answers on all of them."""
        if self.world == 1:
            return list(values)
        seen = torch.tensor(values, dtype=torch.int64, device=device)
        dist.all_reduce(seen, op=dist.ReduceOp.MAX)
        return seen.tolist()

    def every(self, value: Any) -> list[Any]:
        """The values of all ranks in order, on every rank."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Come together: nobody goes on before everybody is here."""
        if self.world > 1:
            dist.barrier()

    def share(self, network: nn.Module, *, unused: bool = False) -> nn.Module:
        """The network whose backward pass adds up gradients over the ranks; itself when alone.

        Args:
            network: On its device, with the same weights on every rank.
            unused: Some parameters get no gradient (the lowest resolution of deep supervision).
        """
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network, find_unused_parameters=unused)


class _Total(torch.autograd.Function):
    """Sum over the ranks; its gradient goes to each rank's own share unchanged.

    Every rank computes the same loss from the sums. The derivative with respect to a rank's own summand is
    then the derivative with respect to the sum; the other ranks' shares arrive when gradients are added up.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        summed = own.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def total_over_ranks(own: Tensor) -> Tensor:
    """Sum of every rank's tensor, differentiable; the same bits on every rank."""
    return cast("Tensor", _Total.apply(own))


ALONE = Ranks()
"""One process trains."""


@contextmanager
def process_group(*, on_cuda: bool, timeout: timedelta | None = None) -> Generator[torch.device]:
    """This process as the rank that torchrun says it is: its device. The group is left on every way out.

    NCCL takes a group down together: while the others wait for a sum that a failed rank never adds to, that
    rank would wait for them, and torchrun would never learn that it failed. So leaving after an error is
    given `LEAVE_S` seconds; if it hangs, the process ends without it. **Source:** pytorch/torchtitan 1342.

    Args:
        on_cuda: NCCL on the GPU of torchrun's LOCAL_RANK; else gloo on the CPU of this machine.
        timeout: of a wait for other ranks; None leaves torch's own.
    """
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    elif sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine; needs no resolvable host name
    own = device if on_cuda else None
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=timeout, device_id=own)

    def leave() -> None:
        if on_cuda:
            torch.cuda.set_device(device)  # a thread begins on the first GPU
        dist.destroy_process_group()

    try:
        yield device
    except BaseException:
        leaving = Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(LEAVE_S)
        if leaving.is_alive():
            atexit.register(os._exit, 1)  # nor may NCCL's own clean-up hold the process
        raise
    leave()
