"""What each aten operator becomes in the float graph.

Enters: a `Call` with handles and constants. Leaves: nodes in the builder and the handle of the result. Must never see:
numbers of an input; everything here depends on shapes and constants alone.

    linear        convolutions, dense layers, products with constant matrices
    elementwise   functions, batch norm, sums and products
    pooling       maxima, means and sums over windows or axes
    movement      reshapes, permutations, slices, padding, concatenation
"""

from __future__ import annotations

from slalom.importer.call import Lowering
from slalom.importer.operators import elementwise, linear, movement, pooling

OPERATORS: dict[str, Lowering] = {
    **linear.OPERATORS,
    **elementwise.OPERATORS,
    **pooling.OPERATORS,
    **movement.OPERATORS,
}

__all__ = ["OPERATORS"]
