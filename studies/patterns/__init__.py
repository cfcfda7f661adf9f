"""Is the pattern the same each time, and does it show where padding acts?

Each small network's PPP under each scheme, in halves of the data, and its growth with the number
of samples. Shown in *ppp-metrics*; data in ``data/patterns``. Decides the claims C3, C4, C5 and
C7 of the paper; their tests, and how networks by name are compared, are [ours].
"""
