"""Sweeps: one notebook, or ``ppp measure``, over many values; on one machine or on a cluster.

`spec` reads what is wanted, `state` knows what there is of it, `job` performs one run within
its limits, `conduct` lets Snakemake run what is missing.
"""
