"""OpenVINO on the trusted cores: the strongest engine wholly inside. Only the offline process imports it.

int8 without a calibration tool: what a convolution, a dense layer or a residual sum reads gets a FakeQuantize with one
range that the measured images give, and weights get one with a range for each output channel. OpenVINO's own passes
then run these layers on int8 kernels, and the model that it compiled says which: a row is named by that.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as operations
from torch import nn

from slalom.bench.float_timing import Engine, FloatTiming, TimeFloat
from slalom.bench.timing import Effort, time_requests
from slalom.errors import ModelError

_LINEAR = ("Convolution", "GroupConvolution", "MatMul")
_EXECUTED = ("Convolution", "FullyConnected", "MatMul")  # as the compiled model calls them
_HINTS = {Engine.OPENVINO_FP32: "f32", Engine.OPENVINO_BF16: "bf16", Engine.OPENVINO_INT8: "f32"}
_PRECISIONS = {Engine.OPENVINO_FP32: ("f32",), Engine.OPENVINO_BF16: ("bf16",), Engine.OPENVINO_INT8: ("u8", "i8")}


class OpenVinoNetwork:
    """A float network in OpenVINO, converted once for each shape of a batch and quantised once for each."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._core = openvino.Core()
        self._models: dict[tuple[bool, tuple[int, ...]], Any] = {}

    def time(self, question: TimeFloat) -> FloatTiming:
        """The faster of one stream of all threads, and of a stream for each thread.

        Raises ModelError where no layer ran in the numbers of the engine.
        """
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if question.engine is Engine.OPENVINO_BF16 and "BF16" not in capabilities:
            raise ModelError("this processor has no bf16 instructions")
        model = self._model(question.engine is Engine.OPENVINO_INT8, question.images)
        streams = sorted({1, question.threads})
        effort = Effort(question.effort.seconds / len(streams), question.effort.repeats)
        tried = [_time_streams(self._core, model, count, question, effort) for count in streams]
        return max(tried, key=lambda timing: timing.images / statistics.median(timing.seconds))

    def _model(self, int8: bool, images: np.ndarray) -> Any:
        key = (int8, images.shape)
        if key not in self._models:
            if int8:
                self._models[key] = quantise(self._core, self._model(False, images), images)
            else:
                self._models[key] = convert(self._module, images)
        return self._models[key]


def convert(module: nn.Module, images: np.ndarray) -> Any:
    """The network as an OpenVINO model for batches of this shape. Raises ModelError where OpenVINO does not take it."""
    try:
        with torch.no_grad():
            return openvino.convert_model(module, example_input=torch.from_numpy(images), input=[images.shape])
    except Exception as error:  # of many kinds; the other rows are wanted still
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(f"OpenVINO does not take this network: {type(error).__name__}: {reason}") from error


def quantise(core: Any, model: Any, images: np.ndarray) -> Any:
    """The same model with the values that layers and residual sums read, and the weights, between int8 steps."""
    ranges = _ranges(core, model, images)
    quantised = model.clone()
    for source, found in zip(_sources(quantised), ranges, strict=True):
        readers = [target for target in source.get_target_inputs() if _reads_values(target.get_node(), target)]
        low, high = _int8_range(*found)
        given = operations.fake_quantize(source, low, high, low, high, 256)
        for reader in readers:
            reader.replace_source_output(given.output(0))
    for layer in filter(_is_linear, quantised.get_ordered_ops()):
        weights = layer.input_value(1).get_node()
        top = _weight_tops(layer, np.asarray(weights.data))
        layer.input(1).replace_source_output(operations.fake_quantize(weights, -top, top, -top, top, 255).output(0))
    quantised.validate_nodes_and_infer_types()
    return quantised


def _is_linear(node: Any) -> bool:
    return node.get_type_name() in _LINEAR and node.input_value(1).get_node().get_type_name() == "Constant"


def _is_residual(node: Any) -> bool:
    return node.get_type_name() == "Add" and "Constant" not in [
        value.get_node().get_type_name() for value in node.input_values()
    ]


def _reads_values(node: Any, place: Any) -> bool:
    """Whether an input is one of a residual sum, or the first of a layer with constant weights."""
    return _is_residual(node) or (_is_linear(node) and place.get_index() == 0)


def _sources(model: Any) -> list[Any]:
    """The values that are quantised, in the order in which they are made, each once."""
    return [
        value
        for node in model.get_ordered_ops()
        for value in node.outputs()
        if any(_reads_values(target.get_node(), target) for target in value.get_target_inputs())
    ]


def _ranges(core: Any, model: Any, images: np.ndarray) -> list[tuple[float, float]]:
    """The least and the largest of each of those values, on these images."""
    probe = model.clone()
    ends = []
    for source in _sources(probe):
        axes = operations.constant(np.arange(len(source.get_partial_shape()), dtype=np.int64))
        ends += [operations.reduce_min(source, axes).output(0), operations.reduce_max(source, axes).output(0)]
    compiled = core.compile_model(openvino.Model(ends, probe.get_parameters(), "ranges"), "CPU")
    found = compiled({0: images})
    values = [float(found[index]) for index in range(len(ends))]
    return list(zip(values[::2], values[1::2], strict=True))


def _weight_tops(layer: Any, weights: np.ndarray) -> np.ndarray:
    """The largest magnitude of each output channel, shaped to broadcast."""
    if layer.get_type_name() == "MatMul":
        axes: tuple[int, ...] = (1,) if layer.get_attributes()["transpose_b"] else (0,)
    else:
        axes = tuple(range(2 if layer.get_type_name() == "GroupConvolution" else 1, weights.ndim))
    tops: np.ndarray = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), 1e-8).astype(np.float32)
    return tops


def _int8_range(low: float, high: float) -> tuple[np.float32, np.float32]:
    """0..high in 256 levels, or -128/127 high..high where there are negative values."""
    if low >= 0:
        return np.float32(0), np.float32(max(high, 1e-6))
    top = max(-low, high)
    return np.float32(-top * 128 / 127), np.float32(top)


def _time_streams(core: Any, model: Any, streams: int, question: TimeFloat, effort: Effort) -> FloatTiming:
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": question.threads,
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": _HINTS[question.engine],
        },
    )
    found = _executed_precisions(compiled)
    count = sum(precision in _PRECISIONS[question.engine] for precision in found)
    if not count:
        raise ModelError(f"none of its {len(found)} layers runs in these numbers here")
    requests = openvino.AsyncInferQueue(compiled, streams)

    def request() -> None:
        for _ in range(streams):
            requests.start_async({0: question.images}, share_inputs=True)
        requests.wait_all()

    seconds = time_requests(request, effort)
    detail = f"{count} of {len(found)} layers in {'/'.join(_PRECISIONS[question.engine])}, {streams} streams"
    return FloatTiming(seconds, streams * len(question.images), detail)


def _executed_precisions(compiled: Any) -> list[str]:
    """Of every linear layer, as the compiled model says."""
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [(str(info["layerType"].astype(str)), str(info["runtimePrecision"].astype(str))) for info in told]
    return [precision for kind, precision in kinds if kind in _EXECUTED]
