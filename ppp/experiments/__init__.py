"""Experiments built on the core: pictures, networks, training, figures."""
