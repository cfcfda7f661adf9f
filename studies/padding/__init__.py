"""How wrong is padding's guess of the surroundings? [ours]

Padded pixels and features are compared with the true ones, by the distance from the border and by
the width of the surroundings that are kept. Shown in *padding-schemes* and in
*optimal-padding-and-coverage*; computed live from photographs and scenes, no shipped data. The
schemes, and that optimal padding is the truth, are the paper's; no claim is decided here.
"""
