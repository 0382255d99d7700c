"""The chunked output layer and cross entropy: the numbers of torch's own, in any number of chunks."""

import pytest
import torch
import torch.distributed as dist

from conf.schema.parallel import ParallelConfig
from elm_megatron.engine import distributed
from elm_megatron.model import cross_entropy
from elm_megatron.model.cross_entropy import linear_cross_entropy
from elm_megatron.run.world import World
from tests.elm_megatron.rank_pool import RankPool

ROWS, HIDDEN, VOCABULARY = 37, 16, 50


def problem(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """(hidden, weight, labels, weights); some rows weigh nothing."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    weights = (torch.rand(ROWS, generator=generator) > 0.3).float()
    return hidden, weight, labels, weights


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (10, 3), (10, 10), (1 << 20, 1 << 20), (4, 1 << 20)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_losses_and_gradients_are_those_of_torch(monkeypatch, chunk, block, dtype, bound):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk * VOCABULARY)
    monkeypatch.setattr(cross_entropy, "BLOCK", block * VOCABULARY)
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


def test_a_gpu_takes_large_chunks_and_does_not_wait(monkeypatch):
    """Same numbers; the weighing is asserted on the device."""
    monkeypatch.setattr(cross_entropy.devices, "is_gpu", lambda device: True)
    monkeypatch.setattr(cross_entropy, "CHUNK", 1)
    test_losses_and_gradients_are_those_of_torch(monkeypatch, 1, 1, torch.float32, 1e-6)
    hidden, weight, labels, weights = problem()
    with pytest.raises(RuntimeError, match="weighs the tokens in another way"):
        linear_cross_entropy(hidden, weight, labels, weights, None).sum().backward()


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


Z_LOSS = 0.05  # so large that its share of the gradient cannot be missed


def with_z_loss(weight: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Dense reference: plain losses, and gradients (by hidden, by weight) of Σ weight·(loss + z·log²Z)."""
    _, _, labels, weights = problem()
    hidden, weight = (t.detach().clone().requires_grad_() for t in (hidden, weight))
    logits = hidden @ weight.t()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    ((losses + Z_LOSS * torch.logsumexp(logits, -1).square()) * weights).sum().backward()
    return losses.detach(), hidden.grad, weight.grad


@pytest.mark.parametrize("chunk", [1, 1 << 23])
def test_z_loss_is_learnt_and_not_reported(monkeypatch, chunk):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    hidden, weight, labels, weights = problem()
    losses = linear_cross_entropy(hidden, weight, labels, weights, None, z_loss=Z_LOSS)
    (losses * weights).sum().backward()
    exact = with_z_loss(weight, hidden)
    for ours, theirs in zip((losses, hidden.grad, weight.grad), exact, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()
    plain = [t.detach().requires_grad_() for t in (hidden, weight)]
    (linear_cross_entropy(*plain, labels, weights, None) * weights).sum().backward()
    assert (plain[1].grad - weight.grad).norm() > 0.1 * weight.grad.norm()


def over_a_split_vocabulary(world: World) -> list[float]:
    """On a rank that holds its share of the vocabulary: relative errors of losses and of both gradients."""
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)
    distributed.join(world, device, ParallelConfig(tp=world.world_size))
    hidden, weight, labels, weights = problem()
    exact = with_z_loss(weight, hidden)
    mine = weight.detach().chunk(world.world_size)[world.rank].clone().requires_grad_()
    losses = linear_cross_entropy(hidden, mine, labels, weights, dist.group.WORLD, z_loss=Z_LOSS)
    (losses * weights).sum().backward()
    dist.all_reduce(hidden.grad)  # what the layer before it sums
    whole = [torch.empty_like(mine) for _ in range(world.world_size)]
    dist.all_gather(whole, mine.grad)
    distributed.leave()
    pairs = zip((losses, hidden.grad, torch.cat(whole)), exact, strict=True)
    return [((ours - theirs).norm() / theirs.norm()).item() for ours, theirs in pairs]


def test_z_loss_over_a_split_vocabulary(ranks: RankPool):
    for errors in ranks.run(2, over_a_split_vocabulary):
        assert max(errors) <= 1e-6
