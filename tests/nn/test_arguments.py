"""What the layers refuse, and that the message names the argument and what is allowed."""

import pytest
from torch import nn

from ultralytics_sgdm import SGDM, C2fSGDM, RDConv, with_sgdm


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"k": k}, "k must be an odd positive integer such as 3, 5 or 7, got") for k in (2, 0, -1, 3.0, "3", (3, 3))),
        ({"k": 257}, "k must be at most 255, got 257"),
        *(({"s": s}, "s must be a positive integer") for s in (0, -1, 1.5, "2", True)),
    ],
)
def test_rdconv_refuses_kernels_that_are_not_odd_and_strides(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        RDConv(32, 32, **options)


@pytest.mark.parametrize("layer", [SGDM, RDConv])
@pytest.mark.parametrize(
    ("c1", "c2", "name"), [(8, -8, "c2"), (8.0, 8, "c1"), (0, 8, "c1"), (8, "8", "c2"), (True, 8, "c1")]
)
def test_channels_are_positive_integers(layer, c1, c2, name):
    with pytest.raises(ValueError, match=rf"^{name} must be a positive integer \((in|out)put channels\), got"):
        layer(c1, c2)


@pytest.mark.parametrize("ratio", [0.9, 0, 33, "2", None])
@pytest.mark.parametrize("layer", [SGDM, lambda c1, c2, ratio: RDConv(c1, c2, ratio=ratio)])
def test_ratio_must_leave_something(layer, ratio):
    with pytest.raises(ValueError, match=r"^ratio must be a number from 1 to 32"):
        layer(32, 32, ratio)


@pytest.mark.parametrize("kernels", [(), None, 3, "ab", [3], [[1, 2]], [[1, 3, 3]], [[1, 3], [4, 1]], [[0, 3]]])
def test_sgdm_refuses_kernels_that_are_not_odd_pairs(kernels):
    with pytest.raises(ValueError, match=r"in kernels|^kernels must be a non-empty list of \(height, width\) pairs"):
        SGDM(32, 32, 3, kernels)


def test_an_unknown_option_names_the_known_ones_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"C2fSGDM has no option 'ration'.*ratio, kernels, channel, spatial; did you mean 'ratio'"
    ):
        C2fSGDM(32, 32, 1, True, {"ration": 3})


def test_a_block_without_c2_cannot_be_equipped():
    with pytest.raises(TypeError, match=r"argument c2 \(its output channels\), not Conv2d"):
        with_sgdm(nn.Conv2d)
