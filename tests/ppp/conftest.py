"""What several tests of the library look at."""

import pytest
import torch
import torchvision
from toys import LAYERS, network, scenes

import ppp


@pytest.fixture(scope="session")
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture(scope="session")
def model():
    return network()


@pytest.fixture(scope="session")
def coverage(model):
    """Of the small network's three layers, at windows of 20 px."""
    return ppp.coverage(model, LAYERS, 20)


@pytest.fixture(scope="session")
def windows(coverage):
    """Twenty-four windows of 20 px, six in each of four scenes."""
    return ppp.cut_windows(scenes(4), 20, coverage, per_picture=6, seed=0)
