"""Walks the exported graph and lowers every node that the outputs depend on."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from slalom.errors import ModelError
from slalom.importer.builder import Builder, Handle
from slalom.importer.call import Call, Result
from slalom.importer.export import BATCH_SIZE, Exported
from slalom.importer.graph import FloatGraph
from slalom.importer.operators import OPERATORS


def lower_program(exported: Exported) -> FloatGraph:
    """The float graph of an exported network. Raises ModelError naming an operator, its node and module path."""
    return _Walk(exported).run()


class _Walk:
    """`values` holds, for every node so far, a handle, several handles, or a constant."""

    def __init__(self, exported: Exported) -> None:
        self.program: GraphModule = exported.program
        entry = next(node.name for node in self.program.graph.nodes if node.op == "placeholder")
        self.builder = Builder(exported.item_shape, entry)
        self.values: dict[Node, Any] = {}

    def run(self) -> FloatGraph:
        nodes = list(self.program.graph.nodes)
        result = nodes[-1].args[0]
        wanted = _reached_from(nodes[-1])
        for node in nodes[:-1]:
            if node in wanted:
                self.values[node] = self._lower(node)
        results = result if isinstance(result, tuple | list) else (result,)
        outputs = [self.values.get(item) if isinstance(item, Node) else item for item in results]
        if not outputs or not all(isinstance(output, Handle) for output in outputs):
            raise ModelError("every output must be a tensor computed from the input")
        graph = self.builder.finish([output for output in outputs if isinstance(output, Handle)])
        graph.drop_unread()
        return graph

    def _lower(self, node: Node) -> Any:
        if node.op == "placeholder":
            return self.builder.entry
        if node.op == "get_attr":
            return _attribute(self.program, str(node.target))
        if node.op != "call_function":
            raise ModelError(f"unsupported node {node.op} {_place(node)}")
        arguments = torch.fx.map_arg((node.args, node.kwargs), lambda item: self.values[item])
        positional, named = arguments
        if not _holds_handle(arguments):
            with torch.no_grad():
                return node.target(*positional, **named)  # type: ignore[operator]
        if node.target is operator.getitem:
            return _item(node, positional[0], int(str(positional[1])))
        return self._call(node, positional, named)

    def _call(self, node: Node, positional: tuple[Any, ...], named: dict[str, Any]) -> Result:
        lowering = OPERATORS.get(str(node.target))
        if lowering is None:
            raise ModelError(
                f"unsupported operator {str(node.target).removesuffix('.default')} {_place(node)}",
                hint="supported: " + ", ".join(sorted({name.split(".")[1] for name in OPERATORS})),
            )
        self.builder.label, self.builder.observed = _label(node), node.name
        shape = _item_shape(node)
        try:
            result = lowering(Call(self.builder, _bind(node, positional, named), shape))
        except ModelError as error:
            raise ModelError(f"{node.target} {_place(node)}: {error}", hint=error.hint) from error
        if isinstance(result, Handle) and result.shape != shape:
            raise ModelError(f"{node.target} {_place(node)}: lowered to {result.shape}, not {shape}")
        return result


def _reached_from(output: Node) -> set[Node]:
    reached: set[Node] = set()
    pending = [output]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in reached:
                reached.add(source)
                pending.append(source)
    return reached


def _attribute(program: GraphModule, target: str) -> Tensor:
    value: Any = program
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ModelError(f"attribute {target} is not a tensor")
    return value.detach()


def _holds_handle(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_holds_handle(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_handle(item) for item in value.values())
    return isinstance(value, Handle)


def _bind(node: Node, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the operator's schema, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    bound = {argument.name: argument.default_value for argument in schema}
    bound.update(zip((argument.name for argument in schema), positional, strict=False))
    bound.update(named)
    return bound


def _item(node: Node, results: Any, index: int) -> Any:
    if not isinstance(results, tuple) or not 0 <= index < len(results):
        raise ModelError(f"result {index} of an operator is not supported {_place(node)}")
    return results[index]


def _item_shape(node: Node) -> tuple[int, ...]:
    """The shape of the node's result without its batch axis. Raises ModelError unless that axis is still first."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        value = value[0]
    if not isinstance(value, Tensor):
        raise ModelError(f"{node.target} {_place(node)}: its result is not a tensor")
    if value.dtype != torch.float32:
        raise ModelError(f"{node.target} {_place(node)}: gives {value.dtype}; only float32 is supported")
    if value.ndim < 1 or value.shape[0] != BATCH_SIZE:
        raise ModelError(
            f"{node.target} {_place(node)}: gives {_with_batch(value)}, but the first axis must stay the batch"
        )
    return tuple(value.shape[1:])


def _with_batch(value: Tensor) -> str:
    return f"shape {tuple(value.shape)} for a batch of {BATCH_SIZE}"


def _place(node: Node) -> str:
    return f"at node {node.name!r} (from {_module(node)[0] or 'the top module'})"


def _label(node: Node) -> str:
    """The module's path for a layer of torch, else the path and the operator's own name."""
    path, kind = _module(node)
    if not path:
        return node.name
    operator_name = str(node.target).split(".")[1]
    return path if kind.startswith("torch.nn.") else f"{path}.{operator_name}"


def _module(node: Node) -> tuple[str, str]:
    """Path and class of the innermost module that called the operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return str(path).removeprefix("L['self']").lstrip("."), name
