"""The untrusted program: a device behind a door, in a process that is confined before it loads anything.

Enters: a plan file, connections. Leaves: what the device answers, and codes. Must never see: `slalom.trusted`.

    options    what a worker is told when it starts
    entry      the first code that runs: confinement before NumPy or torch start a thread
    door       who may come in: one trusted side at a time, which must say its hello quickly
    program    the plan, the device, and serving
"""
