"""Names of the small networks that are shipped: how each was trained, and how often."""

PADDINGS = ("zeros", "reflect", "replicate", "circular", "randn")
"""Schemes that the small networks train with, and are tested with."""

SEEDS = {"resnet": (0, 1, 2, 3, 4), "vgg": (0, 1, 2)}
"""Seeds of the networks of each family."""

FRESH_SEEDS = {"resnet": (5, 6, 7, 8, 9)}
"""Seeds of further networks, of which tables are shipped and no weights: the amended tests of the
claims C8 to C11 are decided on them, and no first test sees them."""
