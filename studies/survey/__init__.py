"""Which networks of torchvision can be measured, where, and why not elsewhere? [ours]

Every architecture with random weights: audit, choice of layers, coverage and a null test. Shown in
*your-own-network*; data in ``data/torchvision``. No claim of the paper is decided here.
"""
