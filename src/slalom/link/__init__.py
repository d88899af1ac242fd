"""What crosses the boundary between the trusted side and the device: names and arrays, and nothing else.

Enters and leaves: step names, int16 activations, int32 words. Must never see: a probe, a mask, a key.

    port          what a device must answer
    message       headers and bodies as bytes; layout: what a plan says of them; region: memory that both sides see
    remote        the trusted end: a device behind the port's methods
    asks          what it asks, and what must come back; ticket: what an ask gives; following: networks run ahead
    answers       what comes, compared with what must; conversation: both, and the connection
    serve         the device's end; calls and queued: two ways to answer
    intake        how the trusted side takes an answer: by its own shapes, never the device's
"""
