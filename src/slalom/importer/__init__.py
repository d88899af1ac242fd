"""torch.nn.Module -> plan. Offline work on the owner's machine.

Enters: a module, an example input, calibration inputs that are nobody's secret. Leaves: a `Plan`, its range proof made.
Must never see: a user's input, a key, a mask, a probe.

    export     module -> functional aten graph
    lower      aten graph -> float graph (`operators` one file a family, `builder` for axis order, `call` for arguments)
    calibrate  the range of every value
    fold       batch norms, pads and reshapes disappear
    chain      int8 weights; linear maps that follow one another become one step
    fuse       elementwise operations ride with the step before them
    scales     one scale and bits for all values that share integers; the range proof's bits
    assemble   the plan's steps and tensors
"""

from slalom.importer.compiler import compile
from slalom.importer.options import CompileOptions

__all__ = ["CompileOptions", "compile"]
