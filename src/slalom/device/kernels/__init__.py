"""Triton kernels, one family a file (formula, kernel, launcher), each equal to `slalom.arithmetic` bit for bit.

Enters: tensors on one device, C-contiguous, whose shapes were checked. Leaves: the caller's `out` tensor, filled.
Must never see: a NumPy array, a stream, a plan.

    convolution   a linear map as an implicit matrix product of signed bytes, one product a digit
    depthwise     a linear map of one input channel a group, in int32
    stacked       the same as one plain product, after a pass that takes the digits apart
    tiles         which tile sizes a convolution runs with
    packing       claims of 3 bytes an element
    functions     the float32 functions of the epilogue
    pointwise     a program of the epilogue, specialised for its operations
    softmax       rows, in the fixed order of additions
    pooling       windows of integers

With Triton's interpreter every kernel also runs on the CPU, which is how it is tested without a GPU.
"""
