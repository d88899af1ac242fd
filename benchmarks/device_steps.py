"""Times every kind of linear layer of some networks on a CUDA GPU: our exact kernels beside torch in float16.

    python benchmarks/device_steps.py [vgg_16 resnet_50 mobilenet] [--batch-size 16] [--json FILE]

For each distinct layer: microseconds of torch float16 (cuDNN, channels last; the same products, not exact) and of
ours at 1, 2 and 4 digits, by CUDA graphs of many launches on random data, median. `floor` is the larger of the bytes
that 4 digits must move over 3.0 TB/s and their operations over 1979 int8 TOP/s; `share` is how much of it is reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from triton.testing import do_bench_cudagraph

from slalom.device.kernels.convolution import convolve, pack_weights
from slalom.device.kernels.depthwise import convolve_depthwise
from slalom.device.kernels.tiles import Tile, can_stack, choose_tile, registers_tile, stacked_tile
from slalom.plan.shapes import Geometry, map_geometry
from slalom.plan.steps import Convolution, Dense
from slalom.zoo.catalogue import load_module

INT8_RATE = 1979e12  # H100 SXM, dense, by its data sheet
MEMORY_RATE = 3.0e12  # measured by a copy, bytes read and written
RANGES = {1: (torch.int16, 127), 2: (torch.int16, 2047), 4: (torch.int32, 2**31 - 1)}


@dataclass(frozen=True)
class Row:
    """One distinct layer: how often it occurs, and microseconds."""

    network: str
    layer: str
    count: int
    float16: float
    digits: dict[int, float]
    floor: float
    kernel: str
    others: dict[str, float]


def layers_of(name: str) -> Iterator[tuple[str, Geometry, nn.Module]]:
    """Every convolution and dense layer of a network of the zoo, in order, with what it computes."""
    loaded = load_module(name)
    found: list[tuple[str, Geometry, nn.Module]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        found.append(describe(module, inputs[0]))

    for module in loaded.module.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.no_grad():
        loaded.module(torch.zeros(1, *(loaded.entry.input_shape or (3, 224, 224))))
    yield from found


def describe(module: nn.Module, x: Tensor) -> tuple[str, Geometry, nn.Module]:
    if isinstance(module, nn.Linear):
        geometry = map_geometry(Dense("w"), (module.in_features, module.out_features), tuple(x.shape[1:]))
        return f"dense {module.in_features}>{module.out_features}", geometry, module
    if not isinstance(module, nn.Conv2d) or isinstance(module.padding, str):
        raise TypeError(f"{type(module).__name__} is no linear layer with plain padding")
    rows, columns = module.padding
    convolution = Convolution("w", module.stride, (rows, rows, columns, columns), module.dilation, module.groups)
    weight = (*module.kernel_size, module.in_channels // module.groups, module.out_channels)
    geometry = map_geometry(convolution, weight, (*x.shape[2:], x.shape[1]))
    kind = "depthwise" if module.groups > 1 else f"{module.kernel_size[0]}x{module.kernel_size[1]}"
    stride = f"/{module.stride[0]}" if module.stride[0] > 1 else ""
    return f"{kind}{stride} {module.in_channels}>{module.out_channels} @{x.shape[2]}", geometry, module


def time_float16(module: nn.Module, geometry: Geometry, batch: int) -> float:
    height, width, channels = geometry.input_image
    module = module.to("cuda", torch.half)
    module.register_parameter("bias", None)  # which is no part of a linear step
    if isinstance(module, nn.Linear):
        x = torch.randn(batch * height, channels, device="cuda", dtype=torch.half)
    else:
        module = module.to(memory_format=torch.channels_last)
        x = torch.randn(batch, channels, height, width, device="cuda", dtype=torch.half)
        x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return measure(lambda: module(x))


def time_ours(geometry: Geometry, batch: int, digits: int, tile: Tile | None = None) -> float:
    dtype, limit = RANGES[digits]
    words = torch.randint(-limit, limit, (batch, *geometry.input_image), device="cuda").to(dtype)
    weight = torch.randint(-127, 128, geometry.weight_shape, device="cuda").to(torch.int8)
    out = torch.empty((batch, *geometry.output_image), dtype=torch.int32, device="cuda")
    if is_depthwise(geometry):
        return measure(lambda: convolve_depthwise(words, weight.view(geometry.taps, -1), out, geometry))
    packed = pack_weights(geometry, weight)
    return measure(lambda: convolve(words, packed, out, digits, tile))


def measure(work: Callable[[], object]) -> float:
    work()
    return float(do_bench_cudagraph(work, rep=10, return_mode="median")) * 1000


def floor_of(geometry: Geometry, batch: int) -> float:
    height, width, channels = geometry.input_image
    weights = geometry.taps * geometry.group_inputs * geometry.output_image[2]
    elements = batch * (height * width * channels + geometry.pixels * geometry.output_image[2])
    operations = 2 * batch * geometry.pixels * weights * (0 if is_depthwise(geometry) else 4)
    return max(operations / INT8_RATE, (4 * elements + weights) / MEMORY_RATE) * 1e6


def is_depthwise(geometry: Geometry) -> bool:
    return geometry.groups > 1 and geometry.group_inputs == 1


def rows_of(network: str, batch: int) -> Iterator[Row]:
    distinct: dict[tuple[str, Geometry], tuple[nn.Module, int]] = {}
    for label, geometry, module in layers_of(network):
        distinct[label, geometry] = (module, distinct.get((label, geometry), (module, 0))[1] + 1)
    for (label, geometry), (module, count) in distinct.items():
        digits = {number: time_ours(geometry, batch, number) for number in RANGES}
        stacked = not is_depthwise(geometry) and choose_tile(geometry, batch, 4).stacked
        kernel = "depthwise" if is_depthwise(geometry) else "stacked" if stacked else "registers"
        half = time_float16(module, geometry, batch)
        yield Row(network, label, count, half, digits, floor_of(geometry, batch), kernel, time_others(geometry, batch))


def time_others(geometry: Geometry, batch: int) -> dict[str, float]:
    """What each kernel takes at 2 and 4 digits where both could run: the numbers behind `choose_tile`."""
    if geometry.groups > 1 or geometry.group_inputs % 64 or not can_stack(geometry) or geometry.pixels == 1:
        return {}
    stacked = stacked_tile(geometry)
    registers = {digits: registers_tile(geometry, batch * geometry.pixels, digits) for digits in (2, 4)}
    times = {f"registers {digits}": time_ours(geometry, batch, digits, tile) for digits, tile in registers.items()}
    return times | {f"stacked {digits}": time_ours(geometry, batch, digits, stacked) for digits in (2, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["vgg_16", "resnet_50", "mobilenet"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {arguments.batch_size}", file=sys.stderr)
    rows = []
    print("| network | layer | times | fp16 us | 1 digit | 2 digits | 4 digits | of fp16 | floor | share | kernel |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for network in arguments.networks:
        for row in rows_of(network, arguments.batch_size):
            rows.append(row)
            ours = " | ".join(f"{row.digits[number]:.1f}" for number in RANGES)
            four = row.digits[4]
            print(
                f"| {network} | {row.layer} | {row.count} | {row.float16:.1f} | {ours} | {four / row.float16:.2f} "
                f"| {row.floor:.1f} | {row.floor / four:.2f} | {row.kernel} |",
                flush=True,
            )
        mine = [row for row in rows if row.network == network]
        half = sum(row.count * row.float16 for row in mine)
        total = {number: sum(row.count * row.digits[number] for row in mine) for number in RANGES}
        sums = " | ".join(f"{total[number]:.0f}" for number in RANGES)
        times = sum(row.count for row in mine)
        print(f"| {network} | all | {times} | {half:.0f} | {sums} | {total[4] / half:.2f} | | | |")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
