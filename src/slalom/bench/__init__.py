"""Measurements and evaluations: what the command line prints, as plain values.

Enters: a plan or a network, images, a policy. Leaves: frozen dataclasses of figures. Nothing here prints.
"""
