"""Names of the small networks that are shipped: how each was trained, and how often."""

PADDINGS = ("zeros", "reflect", "replicate", "circular", "randn")
"""Schemes that the small networks train with, and are tested with."""

SEEDS = {"resnet": (0, 1, 2, 3, 4), "vgg": (0, 1, 2)}
"""Seeds of the networks of each family."""
