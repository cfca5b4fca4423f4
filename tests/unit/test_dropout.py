"""Keyed dropout: a function of the sample's key and the layer, with dropout's statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsss.models.dropout import KeyedDropout, replace_dropout, set_keys
from wsss.randomness import keyed_uniform


def test_uniform_numbers_are_uniform_and_independent() -> None:
    keys = torch.tensor([1, 2, 2**62 + 5, 2**40])
    numbers = keyed_uniform(keys, 0, 50_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert torch.allclose(numbers.mean(1), torch.full((4,), 0.5), atol=0.01)
    assert torch.allclose(numbers.var(1), torch.full((4,), 1 / 12), atol=0.005)
    correlation = torch.corrcoef(torch.cat([numbers, keyed_uniform(keys, 1, 50_000)]))
    assert (correlation - torch.eye(8)).abs().max() < 0.03


def test_a_sample_is_dropped_alike_in_every_batch() -> None:
    layer = KeyedDropout(0.5).train()
    x = torch.ones(4, 8, 5, 5)
    keys = torch.tensor([11, 22, 33, 44])
    set_keys(layer, keys)
    together = layer(x)
    set_keys(layer, keys[2:3])
    assert torch.equal(layer(x[2:3])[0], together[2])
    assert not torch.equal(together[0], together[1])


def test_rate_scale_and_eval() -> None:
    layer = KeyedDropout(0.3, channels=True).train()
    set_keys(layer, torch.arange(64))
    out = layer(torch.ones(64, 100, 2, 2))
    assert torch.isclose(out.mean(), torch.tensor(1.0), atol=0.03)
    assert set(out.amax((2, 3)).unique().tolist()) == set(out.amin((2, 3)).unique().tolist())
    x = torch.rand(2, 3)
    assert layer.eval()(x) is x


def test_it_refuses_to_draw_without_keys() -> None:
    with pytest.raises(RuntimeError, match="set_keys"):
        KeyedDropout(0.5).train()(torch.ones(2, 3))


def test_layers_differ_and_foreign_dropout_is_replaced() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout2d(0.5)))
    replace_dropout(net)
    kinds = [m for m in net.modules() if isinstance(m, KeyedDropout)]
    assert [m.channels for m in kinds] == [False, True]
    set_keys(net, torch.tensor([5]))
    assert [m.layer for m in kinds] == [0, 1]
