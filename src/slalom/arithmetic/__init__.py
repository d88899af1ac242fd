"""Exact arithmetic that either side may use: integers mod 2**32, the field F_p, and the float32 epilogue.

Enters: arrays whose shapes the caller has validated, and plan steps. Leaves: arrays, bit for bit the same from every
instruction set. Must never see: a socket, a file, a key, torch. NumPy is the reference of every function; `_native`
is the same function, faster.
"""
