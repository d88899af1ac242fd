"""Measurements and evaluations: what the command line prints, as plain values.

Enters: a plan or a network, images, a policy. Leaves: frozen dataclasses of figures. Nothing here prints. Only
`torch_baseline` and `openvino_baseline` import torch, and only the offline process imports them.

    timing, rows, limits               requests timed; a row; what the machine allows and how near a row comes
    float_timing                       what is asked of the offline process
    torch_baseline, openvino_baseline  what it answers
    protected, side_by_side            one level; a run of every engine and level
    comparison, provenance, records    the run as one value; where it was made; lines of a CSV file
    engine, fused, boundary            the trusted kernels, and what a process boundary costs
    evaluate, memory                   a network on labelled images; what the trusted side holds
"""
