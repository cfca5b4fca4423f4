"""What three processes check together for `test_distributed.py`; each raises where it finds a
mistake."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsss.distributed import collectives
from wsss.distributed.group import joined, rank
from wsss.distributed.parts import part_of
from wsss.models.sync_norm import synchronise

COUNT = 3
GENERATOR = torch.Generator().manual_seed(0)
BATCH = torch.rand(7, 4, 5, 3, generator=GENERATOR) * 3 + 1
WEIGHTS = torch.rand(7, 4, 5, 3, generator=GENERATOR)


def own(rows: Tensor) -> Tensor:
    return rows[part_of(len(rows), rank(), COUNT)]


def check_gather() -> None:
    """Rows in order, whatever their type; the gradient is summed over processes."""
    mine = own(BATCH).clone().requires_grad_()
    everyone = collectives.gathered(mine)
    assert torch.equal(everyone, BATCH)
    # Each process counts for a third and one of them three times as much in the end.
    ((everyone * WEIGHTS).sum() * (rank() + 1)).backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, own(WEIGHTS) * 6)
    for rows in (BATCH > 2, (BATCH * 9).long(), BATCH.bfloat16(), torch.arange(7)):
        assert torch.equal(collectives.gathered(own(rows)), rows)
    assert torch.equal(collectives.mine(BATCH), own(BATCH))
    empty = collectives.gathered(torch.ones(2 if rank() == 1 else 0, 3))
    assert empty.shape == (2, 3)


def check_total() -> None:
    mine = torch.full((), float(rank()), requires_grad=True)
    total = collectives.total(mine)
    assert total == 3
    (total * total / COUNT).backward()
    assert mine.grad == 6


def check_gradients() -> None:
    """One that some processes lack counts as 0; one that none has stays without."""
    everyone, some, nobody = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    everyone.grad = torch.full((3,), float(rank()))
    if rank() == 2:
        some.grad = torch.ones(3)
    collectives.sum_gradients([everyone, some, nobody])
    assert everyone.grad.tolist() == [3, 3, 3]
    assert some.grad is not None
    assert some.grad.tolist() == [1, 1, 1]
    assert nobody.grad is None


def check_host() -> None:
    assert collectives.host_table([rank(), 5]) == [[0, 5], [1, 5], [2, 5]]
    assert collectives.host_sums({"a": rank() / 2, "b": 1.0}) == {"a": 1.5, "b": 3.0}
    names = [f"bild-{rank()}-ä"] * (rank() + 1)
    found = collectives.host_texts(names)
    assert found == ["bild-0-ä"] + ["bild-1-ä"] * 2 + ["bild-2-ä"] * 3


def check_replicas() -> None:
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, rank() + 1.0)
    collectives.replicate([network])
    assert (network.weight == 1).all()


def check_norm(momentum: float | None) -> None:
    """Outputs, gradients and running statistics of the whole batch in one process."""
    whole = nn.BatchNorm2d(4, momentum=momentum)
    nn.init.uniform_(whole.weight)
    parts = nn.Sequential(nn.BatchNorm2d(4, momentum=momentum))
    parts[0].load_state_dict(whole.state_dict())
    collectives.replicate([whole, parts])
    synchronise(parts)
    for _ in range(2):
        full, mine = BATCH.clone().requires_grad_(), own(BATCH).clone().requires_grad_()
        expected, got = whole(full), parts(mine)
        torch.testing.assert_close(got, own(expected), rtol=1e-5, atol=1e-5)
        (expected.square() * WEIGHTS).sum().backward()
        (got.square() * own(WEIGHTS)).sum().backward()
        assert full.grad is not None
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, own(full.grad), rtol=1e-4, atol=1e-4)
    collectives.sum_gradients(parts.parameters())
    torch.testing.assert_close(parts[0].weight.grad, whole.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts[0].bias.grad, whole.bias.grad, rtol=1e-4, atol=1e-4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts[0].state_dict()[name], value, rtol=1e-5, atol=1e-6)
    parts.eval()
    whole.eval()
    torch.testing.assert_close(parts(BATCH), whole(BATCH), rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    with joined("cpu"):
        check_gather()
        check_total()
        check_gradients()
        check_host()
        check_replicas()
        check_norm(0.1)
        check_norm(None)
