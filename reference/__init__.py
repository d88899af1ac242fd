"""The whole protocol, slow and plain: what every fast implementation is compared with, bit for bit.

Enters: a `Graph`, its tensors and float32 images. Leaves: outputs, activations, claims, masks, probes. It shares with
the product only the vocabulary (`slalom.plan.steps`) and the errors: its arithmetic is Python integers and single numpy
float32 operations, and every array carries a leading batch axis. Start with `linear`, then `check` and `blinding`,
then `protocol`. Nothing here is constant-time, fast or meant to protect anybody.
"""
