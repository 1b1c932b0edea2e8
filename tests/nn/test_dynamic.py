import pytest
import torch

from ultralytics_sgdm.nn.dynamic import ChannelBranch, SpatialBranch, mix, razor_width


@pytest.mark.parametrize(
    ("channels", "ratio", "width"),
    [(64, 3, 16), (128, 3, 48), (256, 3, 80), (512, 4, 128), (32, 8, 16), (64, 64, 16), (64, 1, 64), (1, 1, 1)],
)
def test_razor_width_is_the_nearest_multiple_of_16_that_does_not_widen(channels, ratio, width):
    assert razor_width(channels, ratio) == width


def test_mix_has_the_gradients_of_the_equation_to_the_second_order():
    b, m, c, h, w = 2, 3, 4, 3, 5
    shapes = [(b, c, h, w)] * m + [(b, c, 1, 1)] * m + [(b, 1, h, w)] * m
    tensors = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *t: mix(t[:m], t[m : 2 * m], t[2 * m :]), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: mix(t[:m], t[m : 2 * m], t[2 * m :]), tensors, fast_mode=True)


def test_mix_keeps_nothing_but_its_inputs_for_the_backward_pass():
    m, kept = 4, set()
    responses = [torch.randn(2, 8, 6, 6, requires_grad=True) for _ in range(m)]
    alpha = [torch.randn(2, 8, 1, 1, requires_grad=True) for _ in range(m)]
    gamma = [torch.randn(2, 1, 6, 6, requires_grad=True) for _ in range(m)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.add(t.data_ptr()) or t, lambda t: t):
        mix(responses, alpha, gamma)
    assert kept == {t.data_ptr() for t in (*responses, *alpha, *gamma)}


@pytest.mark.parametrize(("branch", "shape"), [(ChannelBranch, (96, 1, 1)), (SpatialBranch, (4, 5, 7))])
def test_branches_start_at_exactly_one(branch, shape):
    assert torch.equal(branch(24, 4)(torch.randn(2, 24, 5, 7)), torch.ones(2, *shape))
