"""What would the paper cost on the scale of ImageNet? [ours]

Work is counted, and priced by published rates. Shown in *paper-on-scale*; rates in
``data/costs.yaml``. No claim of the paper is decided here.
"""
