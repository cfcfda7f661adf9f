"""Networks to measure: two small ones trained on the plane, torchvision's, and your own."""

# ruff: noqa: F401

from studies.networks.layers import layers_of_interest
from studies.networks.load import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHIPPED,
    Network,
    fetch_weights,
    load_network,
    manifest,
    normalise,
    reach_of,
    torchvision_model,
)
from studies.networks.small import (
    FAMILIES,
    MIXED,
    OPTIMAL,
    PLANE_MEAN,
    PLANE_STD,
    PLANE_WINDOW,
    rebuilt,
    small_resnet,
    small_vgg,
)
from studies.networks.weights import SUFFIXES, fetch, load_file, weights_sha256
