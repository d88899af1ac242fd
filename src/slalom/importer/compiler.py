"""From a torch module and calibration inputs to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from slalom.importer.assemble import Assembly
from slalom.importer.calibrate import observe_ranges
from slalom.importer.chain import form_chains
from slalom.importer.export import export_module
from slalom.importer.fold import fold_graph
from slalom.importer.fuse import fuse_graph
from slalom.importer.lower import lower_program
from slalom.importer.options import CompileOptions
from slalom.importer.scales import choose_scales
from slalom.plan import Plan
from slalom.plan.steps import Graph, Preprocessing

_DEFAULTS = CompileOptions()


def compile(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    calibration: Iterable[Tensor],
    *,
    options: CompileOptions = _DEFAULTS,
    name: str | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] = (),
) -> Plan:
    """The plan of a network in inference mode, all linear sums proved to fit 32 bits.

    `example_inputs` holds one float tensor [N, ...], whose item shape the plan is made for. `calibration` gives batches
    [N, ...] of typical inputs, from which every scale is taken; it must not be a user's secret. `name` is the model's
    (by default its class). The same module and calibration give the same plan. The module is left in eval mode.
    Raises ModelError naming the operator, node or step that cannot be compiled.
    """
    exported = export_module(module, example_inputs)
    graph = lower_program(exported)
    ranges = observe_ranges(exported, calibration)
    fold_graph(graph)
    chains = form_chains(graph, options)
    schedule = fuse_graph(graph)
    scales = choose_scales(graph, schedule, chains, ranges, options)
    assembly = Assembly(graph, schedule, chains, scales)
    model = type(module).__name__ if name is None else name
    face = Graph(model, assembly.input, assembly.steps, assembly.outputs, preprocessing, tuple(classes))
    return Plan(face, assembly.tensors)
