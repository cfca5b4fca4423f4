"""The network that follows another one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsss.models.teacher import follow, ramped, teacher_of


def student() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_it_starts_as_a_copy_without_gradient() -> None:
    net = student()
    teacher = teacher_of(net)
    assert not teacher.training
    assert net.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in net.parameters())
    for name, value in net.state_dict().items():
        mine = teacher.state_dict()[name]
        assert torch.equal(mine, value)
        assert mine.data_ptr() != value.data_ptr()


def test_the_average_is_exact() -> None:
    net = student()
    teacher, momentum = teacher_of(net), 0.9
    expected = {k: v.double() for k, v in teacher.state_dict().items()}
    for step in range(5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        net(torch.randn(2, 3, 8, 8))  # moves the running statistics
        follow(teacher, net, momentum)
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                expected[name] = momentum * expected[name] + (1 - momentum) * value.double()
            else:
                expected[name] = value.double()
        for name, value in teacher.state_dict().items():
            assert torch.allclose(value.double(), expected[name], rtol=0, atol=1e-6), (step, name)


def test_what_is_equal_stays_to_the_last_bit() -> None:
    net = student()
    teacher = teacher_of(net)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    for momentum in (0.996, 0.3, 0.0):
        follow(teacher, net, momentum)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_without_momentum_it_is_the_student() -> None:
    net = student()
    teacher = teacher_of(net)
    with torch.no_grad():
        net[0].weight.add_(1)
    follow(teacher, net, 0.0)
    assert torch.equal(teacher[0].weight, net[0].weight)


def test_the_ramp_averages_until_the_momentum_is_reached() -> None:
    assert [ramped(0.996, step) for step in (0, 1, 3)] == pytest.approx([0.0, 0.5, 0.75])
    assert ramped(0.996, 10_000) == 0.996
