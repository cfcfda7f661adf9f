"""What do the settings of a measurement do to its result? [ours]

The tables of sweeps, which run a chapter or a measurement over many values of its parameters, and
figures by factor. Shown in *sweeps*; data in ``data/sweeps``. No claim of the paper is decided
here.
"""
