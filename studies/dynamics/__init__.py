"""When does PPP form in training, how does it grow, and is it learnt?

Small networks are trained with every padding, and measured on the way. Shown in
*training-dynamics*; data in ``data/dynamics``, weights in ``data/networks``. Decides the paper's
claims C8 to C11; the networks, the design and the statistics are [ours].
"""
