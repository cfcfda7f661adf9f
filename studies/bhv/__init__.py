"""What else than padding decides the border-handling-variants test?

The published test (Kayhan & van Gemert, CVPR 2020) is repeated, with one factor of its design at
a time changed. Shown in *bhv-confounders*; data in ``data/bhv``. Decides the paper's claim C2;
the choice of factors and the statistics are [ours].
"""
