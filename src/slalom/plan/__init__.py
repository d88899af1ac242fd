"""The compiled network that both sides read.

Enters: a graph and its tensors from the importer, or a `.slalom` file. Leaves: a `Plan` that has passed every check of
`validation`, and its digest. Must never see: an input of a user, a key, torch.

    steps        the vocabulary: values, linear maps, steps
    shapes       what a linear map does to a shape, and its range bound
    validation   the frame every plan must satisfy, each refusal a ModelError that names what is wrong
    step_checks  what each kind of step must satisfy
    manifest     steps <-> JSON, strictly
    container    the file: safetensors, with the manifest in its metadata
    plan         the `Plan` itself: load, save, digest
    flow         who reads which value, and when it can be forgotten
    cost         operations and bytes of every step
"""

from slalom.plan.plan import Plan

__all__ = ["Plan"]
