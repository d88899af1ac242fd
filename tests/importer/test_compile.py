"""The front door: what it refuses and in which words, determinism, names, degenerate ranges."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import slalom
from reference.network import run
from slalom.errors import ApiMisuse, ModelError
from slalom.importer import CompileOptions, compile
from slalom.plan.steps import Activation, Linear, Preprocessing
from tests.importer.compiled import Function, compile_module, draw_inputs, randomise


def refusal(module: nn.Module, item_shape: tuple[int, ...], **options: int) -> str:
    with pytest.raises(ModelError) as caught:
        compile_module(module, item_shape, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


class Nested(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 1), Function(function))

    def forward(self, values: Tensor) -> Tensor:
        return self.layer1(values)


def test_unsupported_operator_is_named_with_its_place() -> None:
    with pytest.raises(ModelError) as caught:
        compile_module(Nested(torch.erfinv), (3, 4, 4))
    assert str(caught.value) == "unsupported operator aten.erfinv at node 'erfinv' (from layer1.1)"
    assert caught.value.hint is not None
    assert "conv2d" in caught.value.hint


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "batch in reshape": (lambda x: x.reshape(-1, 4), r"aten\.(view|reshape).*first axis must stay the batch"),
    "batch joined": (lambda x: x.flatten(0, 1), "first axis must stay the batch"),
    "batch permuted": (lambda x: x.permute(1, 0, 2, 3), "first axis must stay the batch"),
    "batch transposed": (lambda x: x.reshape(-1, 4, 12).transpose(0, 1), "along the batch"),
    "mean over the batch": (lambda x: x - x.mean(0, keepdim=True), "first axis must stay the batch"),
    "batch sliced": (lambda x: x[:1], "first axis must stay the batch"),
    "batch reversed": (lambda x: torch.cat([x[2:], x[:2]]), "first axis must stay the batch"),
    "softmax over the batch": (lambda x: torch.softmax(x, 0), "along the batch"),
    "product of values": (lambda x: x @ x.transpose(2, 3), "must be a constant of 2 axes"),
    "expand": (lambda x: x[:, :1].expand(-1, 3, -1, -1), "repeats numbers"),
    "constant joined": (lambda x: torch.cat([x, torch.zeros(x.shape)], 1), "joins a constant"),
    "reflection": (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), "unsupported operator|only padding"),
    "other padding": (lambda x: functional.pad(x, (1, 1), value=2.0), "only padding with zeros"),
    "integers": (lambda x: x.to(torch.int32) * 2.0, "only float32"),
    "constant output": (lambda x: torch.zeros(len(x), 2), "every output must be"),
    "division by zero": (lambda x: x / 0, "divides by zero"),
    "both broadcast": (lambda x: x[:, :1] + x[:, :, :1], "broadcast against each other"),
    "batch differs": (lambda x: x + torch.arange(4.0).reshape(4, 1, 1, 1), "differs between the items"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str) -> None:
    function, pattern = REFUSED[name]
    message = refusal(Function(function), (3, 4, 4))
    assert re.search(pattern, message), message


def test_data_dependent_control_flow_is_one_line() -> None:
    assert "torch.export cannot read" in refusal(Function(lambda x: x if x.sum() > 0 else -x), (3,))


def test_batch_norm_without_statistics_is_refused() -> None:
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ModelError, match=r"running statistics|unsupported operator"):
        compile(layer, (draw_inputs(2, 3, 4, 4),), [draw_inputs(2, 3, 4, 4)])


@pytest.mark.parametrize("module", [nn.Linear(3, 2).half(), nn.Linear(3, 2).double(), nn.Linear(3, 2, device="meta")])
def test_parameters_are_single_precision_on_the_cpu(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="parameter 'weight' is"):
        compile(module, (draw_inputs(1, 3),), [draw_inputs(1, 3)])


def test_a_literal_batch_of_one_is_refused() -> None:
    module = Function(lambda x: x.view(1, -1))
    with pytest.raises(ModelError, match="first axis must stay the batch"):
        compile(module, (draw_inputs(1, 3, 4),), [draw_inputs(1, 3, 4)])


def test_an_impossible_range_is_refused_with_its_numbers() -> None:
    message = refusal(nn.Linear(300_000, 1), (300_000,), minimum_bits=12)
    assert re.fullmatch(
        r"step 'linear': its sums reach \d+ times the input, "
        r"which leaves \d+ activation bits in 32; at least 12 are wanted",
        message,
    )


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ([], "at least one input"),
        ([torch.zeros(0, 3)], "at least one input"),
        ([torch.zeros(2, 4)], "batch 0 has shape"),
        ([torch.full((2, 3), float("nan"))], "batch 0 holds a number that is not finite"),
        ([torch.zeros(2, 3), torch.tensor([[1.0, float("inf"), 0]])], "batch 1 holds"),
        ([torch.full((2, 3), 3e38)], "not finite at node"),
    ],
)
def test_calibration_is_checked(calibration: list[Tensor], words: str) -> None:
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, 5.0)
    with pytest.raises(ModelError, match=words):
        compile(layer, (torch.zeros(2, 3),), calibration)


@pytest.mark.parametrize(
    "inputs", [(), (torch.zeros(1, 3), torch.zeros(1, 3)), (torch.zeros(3),), (torch.zeros(1, 3, dtype=torch.int64),)]
)
def test_only_a_single_float_batch_goes_in(inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(ModelError, match="input"):
        compile(nn.Linear(3, 2), inputs, [torch.zeros(1, 3)])


@pytest.mark.parametrize(
    "options",
    [{"activation_bits": 16}, {"activation_bits": 1}, {"weight_bits": 9}, {"activation_bits": 5}, {"minimum_bits": 0}],
)
def test_options_out_of_range_are_misuse(options: dict[str, int]) -> None:
    with pytest.raises(ApiMisuse):
        CompileOptions(**options)


def test_a_value_of_zeros_has_a_safe_scale() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(layers[0].weight)
    nn.init.zeros_(layers[0].bias)
    plan = compile(layers, (torch.zeros(1, 3),), [torch.zeros(1, 3)])
    assert {kind.scale for kind in plan.types.values() if isinstance(kind, Activation)} == {1.0}
    with torch.no_grad():
        wanted = layers(torch.ones(1, 3)).numpy()
    np.testing.assert_array_equal(run(plan.graph, plan.tensors, np.ones((1, 3)))[0], wanted)


def _network() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(36, 5))
    randomise(network)
    return network


def test_the_same_network_gives_the_same_digest() -> None:
    inputs = draw_inputs(6, 3, 5, 5)
    digests = {
        compile(_network(), (inputs[:count],), [*inputs.split(size)]).digest for count, size in ((1, 6), (3, 1), (6, 4))
    }
    assert len(digests) == 1  # however the calibration was batched
    assert compile(_network(), (inputs,), [inputs * 2]).digest not in digests


def test_the_face_of_the_plan() -> None:
    preprocessing = Preprocessing(5, 6, "bilinear", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    inputs = draw_inputs(2, 3, 5, 5)
    plan = slalom.compile(
        _network(), (inputs,), [inputs], name="mine", preprocessing=preprocessing, classes=["a", "b", "c", "d", "e"]
    )
    assert (plan.graph.model, plan.graph.preprocessing, plan.graph.classes) == ("mine", preprocessing, tuple("abcde"))
    assert compile(_network(), (inputs,), [inputs]).graph.model == "Sequential"


def test_steps_bear_the_paths_of_their_modules() -> None:
    compiled = compile_module(Nested(torch.relu), (3, 4, 4))
    assert [step.name for step in compiled.plan.graph.steps] == ["layer1.0", "layer1.0.epilogue"]
    assert set(compiled.plan.tensors) == {
        "layer1.0.weight",
        "layer1.0.epilogue.multiplier",
        "layer1.0.epilogue.bias",
    }


def test_unread_branches_are_dropped() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, values: Tensor) -> Tensor:
            torch.relu(self.idle(values))
            return self.used(values)

    assert [step.name for step in compile_module(Idle(), (4,)).steps(Linear)] == ["used"]


def test_weights_keep_to_their_bits() -> None:
    compiled = compile_module(nn.Linear(20, 6), (20,), weight_bits=5)
    weight = compiled.plan.tensors["linear.weight"]
    assert int(np.abs(weight).max()) == 15
    assert 20 < compiled.decibels < 40
