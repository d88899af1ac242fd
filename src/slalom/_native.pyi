"""Types of the compiled extension (native/src); its functions are documented where `slalom.arithmetic` calls them."""

from typing import Any

from numpy.typing import NDArray

PANEL_WIDTH: int
BLOCK_ROWS: int
TILE_DEPTH: int
SCRATCH_ELEMENTS: int

def supported_isas() -> list[str]: ...

POOLING_ITEMS: int

class Team:
    def __init__(self, threads: int, niceness: int = 0) -> None: ...
    def close(self) -> None: ...

def fused_pass(
    isa: int,
    team: Team,
    shape: tuple[Any, ...],
    source: tuple[Any, ...],
    program: tuple[Any, ...],
    output: tuple[Any, ...],
    dots: tuple[Any, ...],
    claim: tuple[Any, ...] | None,
    words: tuple[Any, ...] | None,
) -> tuple[int, float, float]: ...
def fused_pass_pooled(
    isa: int,
    team: Team,
    shape: tuple[Any, ...],
    source: tuple[Any, ...],
    program: tuple[Any, ...],
    pool: tuple[Any, ...],
    dots: NDArray[Any],
    claim: tuple[Any, ...] | None,
) -> tuple[int, float, float]: ...
def field_multiply(isa: int, a: NDArray[Any], b: NDArray[Any], product: NDArray[Any]) -> None: ...
def gemm(
    isa: int,
    team: Team,
    geometry: NDArray[Any],
    x: NDArray[Any],
    panels: NDArray[Any],
    y: NDArray[Any],
    scratch: NDArray[Any],
    work: tuple[int, int, int, bool],
    /,
) -> None: ...
def depthwise(
    isa: int,
    team: Team,
    geometry: NDArray[Any],
    x: NDArray[Any],
    weight: NDArray[Any],
    y: NDArray[Any],
    pixels: int,
    threads: int,
    /,
) -> None: ...
def field_outer(
    isa: int,
    geometry: NDArray[Any],
    spatial: NDArray[Any],
    kernel: NDArray[Any],
    image: NDArray[Any],
    begin: int,
    end: int,
    /,
) -> None: ...
def pool_maximum(
    isa: int, team: Team, x: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], y: NDArray[Any], /
) -> None: ...
def pool_sum(
    isa: int, team: Team, x: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], y: NDArray[Any], /
) -> None: ...
def quantise_images(
    team: Team,
    shape: tuple[int, int, int],
    channels_first: bool,
    inverse: float,
    limit: float,
    images: NDArray[Any],
    activation: NDArray[Any],
    /,
) -> bool: ...
