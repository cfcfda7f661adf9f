"""The tooling around the book: command line, notebook parameters, pipeline.

It stands apart: it may import :mod:`ppp`, and :mod:`ppp` never imports it.
"""
