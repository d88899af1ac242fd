"""The untrusted side: it computes the linear steps, fast and exactly, and can run a whole network ahead.

Enters: a plan, activations, blinded words. Leaves: claims. Must never see: `slalom.trusted`, a probe, a mask.

    products   one exact matrix product mod 2**32, two ways
    engine     the plan's linear maps on torch, by the first product that proves exact here
    local      a device in this process
    kernels    exact Triton kernels for linear maps and epilogues
    resident   a plan on an accelerator: weights and activations that stay there
    exactness  the self-test of those kernels
    recording  the kernels of one batch, recorded once and replayed
    pinned     host memory that the GPU reads and writes by itself
    cuda       a device on a CUDA GPU
"""
