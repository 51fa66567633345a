"""The rate of each step, the optimiser, and the check that a gradient is finite."""

import pytest
import torch

from mgca.config import TrainConfig
from mgca.decoder import GatedConvDecoder
from mgca.training.optimiser import (
    NotFinite,
    finite_gradient,
    generator,
    learning_rate,
    make_optimizer,
)


def test_the_rate_warms_up_and_decays_to_nothing():
    config = TrainConfig(learning_rate=2.0, warmup=0.2)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[19] == pytest.approx(2.0)
    assert rates[20] == pytest.approx(2.0) and rates[60] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(rates[19:], rates[20:], strict=False))
    assert 0 <= rates[-1] < 1e-2


def test_adam_puts_weight_decay_into_the_gradient():
    decoder = GatedConvDecoder(4)
    assert type(make_optimizer(TrainConfig(), decoder)) is torch.optim.AdamW
    optimizer = make_optimizer(TrainConfig(optimizer="adam"), decoder)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["weight_decay"] == 0.05


def test_a_gradient_that_is_not_finite_is_refused_but_where_float16_overflows():
    layer = torch.nn.Linear(2, 1)
    loss = layer(torch.tensor([3.0, 4.0])).sum()
    loss.backward()
    assert finite_gradient(layer, loss, 0, "") == pytest.approx(26**0.5)  # 3, 4 and the bias
    layer.weight.grad[0, 0] = torch.inf
    with pytest.raises(NotFinite, match="step 7: .* gradient's norm inf. Do this"):
        finite_gradient(layer, loss, 7, "Do this")
    assert finite_gradient(layer, loss, 7, "", overflows=True) == torch.inf
    with pytest.raises(NotFinite, match="the loss is nan"):
        finite_gradient(layer, torch.tensor(torch.nan), 7, "", overflows=True)


def test_a_generator_depends_on_its_numbers_alone():
    def draw(*numbers):
        return torch.rand(3, generator=generator(*numbers)).tolist()

    torch.manual_seed(0)
    first = draw(1, 2)
    torch.manual_seed(9)
    assert draw(1, 2) == first != draw(2, 1)
