"""The chunked output layer and cross entropy: the numbers of torch's own, in any number of chunks."""

import pytest
import torch

from elm_megatron.model import cross_entropy
from elm_megatron.model.cross_entropy import linear_cross_entropy

ROWS, HIDDEN, VOCABULARY = 37, 16, 50


def problem(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """(hidden, weight, labels, weights); some rows weigh nothing."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    weights = (torch.rand(ROWS, generator=generator) > 0.3).float()
    return hidden, weight, labels, weights


@pytest.mark.parametrize("chunk", [1, 10 * VOCABULARY, 1 << 23])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_losses_and_gradients_are_those_of_torch(monkeypatch, chunk, dtype, bound):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    hidden, weight, labels, weights = problem(dtype)
    losses = linear_cross_entropy(hidden, weight, labels, weights, None)
    ((losses * weights).sum() / 7).backward()

    exact_hidden, exact_weight = (t.detach().float().requires_grad_() for t in (hidden, weight))
    exact = torch.nn.functional.cross_entropy(exact_hidden @ exact_weight.t(), labels, reduction="none")
    ((exact * weights).sum() / 7).backward()
    assert losses.dtype == torch.float32
    for ours, theirs in ((losses, exact), (hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert (ours - theirs).norm() <= bound * theirs.norm()


def test_a_frozen_layer_takes_any_weighing():
    """As preferences do: rows of the chosen answer count up, those of the rejected one down."""
    hidden, weight, labels, _ = problem()
    weight.requires_grad_(False)
    signs = torch.where(torch.arange(ROWS) % 2 == 0, 1.0, -0.5)
    (linear_cross_entropy(hidden, weight, labels, torch.ones(ROWS), None) * signs).sum().backward()
    exact = hidden.detach().requires_grad_()
    (torch.nn.functional.cross_entropy(exact @ weight.t(), labels, reduction="none") * signs).sum().backward()
    assert (hidden.grad - exact.grad).norm() <= 1e-6 * exact.grad.norm() and weight.grad is None


def test_a_trained_layer_refuses_a_weighing_it_was_not_told():
    hidden, weight, labels, weights = problem()
    losses = linear_cross_entropy(hidden, weight, labels, weights, None)
    with pytest.raises(RuntimeError, match="weighs the tokens in another way"):
        losses.sum().backward()


def test_nothing_is_kept_for_a_backward_that_never_comes():
    hidden, weight, labels, weights = problem()
    with torch.no_grad():
        losses = linear_cross_entropy(hidden, weight, labels, weights, None)
    assert not losses.requires_grad


def test_rows_that_pad_the_vocabulary_have_no_share():
    hidden, weight, labels, weights = problem()
    real = VOCABULARY - 7
    labels = labels % real
    padded = linear_cross_entropy(hidden, weight, labels, weights, None, real)
    exact = torch.nn.functional.cross_entropy(hidden @ weight[:real].t(), labels, reduction="none")
    assert (padded - exact).norm() <= 1e-6 * exact.norm()
    (padded * weights).sum().backward()
    assert weight.grad[real:].abs().max() == 0.0
