"""A comparison with every kind of row and round figures, for tests of what is made of it."""

from __future__ import annotations

from slalom.bench.comparison import Comparison
from slalom.bench.limits import Limits
from slalom.bench.protected import Timeline
from slalom.bench.provenance import Provenance
from slalom.bench.rows import Row, Stages
from slalom.bench.side_by_side import Skipped
from slalom.bench.timing import Spread
from slalom.trusted.recorder import Side, Span

HOSTILE = '<script src="https://example.org/a.js">&$x_1$"\n'


def row_of(name: str, cores: int, rate: float, *, in_tee: bool = False, crosses: bool = False) -> Row:
    """A row of ten requests of eight images."""
    spread = Spread(rate * 0.9, rate, rate * 1.2)
    latency = Spread(8 / spread.p90, 8 / rate, 8 / spread.p10)
    if not crosses:
        return Row(name, in_tee, cores, 8, 1, 10, spread, latency, detail="as it was")
    stages = Stages(0.001, 0.002, 0.003, 0.004, 0.5)
    return Row(name, in_tee, cores, 8, 2, 10, spread, latency, 1e6, 2e6, 6e6, stages)


def comparison() -> Comparison:
    """Two numbers of cores and a GPU, with names as hostile as a factory's may be."""
    rows = [row_of("torch fp16, GPU", 0, 8000.0)]
    for cores in (1, 4):
        rows += [
            row_of("torch fp32", cores, 10.0 * cores, in_tee=True),
            row_of("openvino int8", cores, 40.0 * cores, in_tee=True),
            row_of("enclave", cores, 20.0 * cores, in_tee=True),
            row_of("verified", cores, 100.0 * cores, crosses=True),
            row_of("private", cores, 80.0 * cores, crosses=True),
        ]
    spans = tuple(Span(HOSTILE, side, part, part * 0.01, part * 0.01 + 0.02) for side in Side for part in (0, 1))
    return Comparison(
        provenance=Provenance("2026-01-02T03:04:05Z", "0123456789ab", "a processor", "a GPU", "0", "3", "2", "2", ""),
        platform="simulation: no TEE; the device is another process",
        model=HOSTILE,
        plan_digest="d" * 64,
        weights="random (seed 0)",
        worker_device="cuda",
        rows=tuple(rows),
        limits=Limits({1: 2e10, 4: 6e10}, 5e10, 4e10, 8e10, 8000.0),
        skipped=(Skipped("openvino bf16", "this processor has no bf16 instructions"),),
        timelines=(Timeline("private", 4, 8, spans),),
    )
