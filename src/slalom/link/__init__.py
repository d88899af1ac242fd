"""What crosses the boundary between the trusted side and the device: names and arrays, and nothing else.

Enters and leaves: step names, int16 activations, int32 words. Must never see: a probe, a mask, a key.

    port      what a device must answer
    intake    how the trusted side takes an answer: by its own shapes, never the device's
"""
