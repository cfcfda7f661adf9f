"""How much of a score of position information is chance?

PosENet's read-outs (Islam et al., ICLR 2020), the border-handling-variants test and PPP are
repeated under the same conditions. Shown in *posenet-variance*; data in ``data/posenet``. Decides
the paper's claims C1 and C6; the design and the statistics are [ours].
"""
