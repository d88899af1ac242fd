"""The vocabulary of a compiled network: values, linear maps, and the steps between them.

Every tensor that flows between steps is an *activation*: integers with one static scale, `real = integer * scale`.
A linear step takes an activation to an *accumulator* (32-bit integers), and every other step is trusted work.
Shapes are per item, without the batch axis, and images are (height, width, channels). A step produces one value,
which bears the step's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

Shape = tuple[int, ...]

MINIMUM_BITS = 2
MAXIMUM_BITS = 15
ACCUMULATOR_LIMIT = 2**31 - 1
WEIGHT_LIMIT = 127


# ---------------------------------------------------------------- the types of values


@dataclass(frozen=True, slots=True)
class Activation:
    """Integers q, stored as int16, with |q| <= 2**(bits-1) - 1 and real = q * scale.

    `bits` is 2..15 and counts the sign; `scale` is a positive float that float32 holds exactly.
    """

    shape: Shape
    scale: float
    bits: int

    @property
    def limit(self) -> int:
        """The largest magnitude an integer of this activation takes."""
        return int(2 ** (self.bits - 1)) - 1  # bits <= 15 -> limit <= 16383 < 2**15


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Plain integers y, stored as int32, with |y| <= bound <= 2**31 - 1 proved at compile time."""

    shape: Shape
    bound: int


@dataclass(frozen=True, slots=True)
class Real:
    """Float32 numbers: what leaves the network."""

    shape: Shape


ValueType = Activation | Accumulator | Real


# ---------------------------------------------------------------- linear maps: what the device computes


@dataclass(frozen=True, slots=True)
class Convolution:
    """y[i, j, o] = sum over (a, b, c) of weight[a, b, c, o] * x[i*stride+a*dilation-top, j*..., group(o)*C + c].

    `weight` names an int8 tensor (kernel height, kernel width, input channels / groups, output channels) with
    values in -127..127. Output channels are grouped in order. Positions outside the image are zero.
    """

    weight: str
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True, slots=True)
class Dense:
    """y[..., o] = sum over i of weight[i, o] * x[..., i]: acts on the last axis.

    `weight` names an int8 tensor (input features, output features) with values in -127..127.
    """

    weight: str


LinearMap = Convolution | Dense


# ---------------------------------------------------------------- pointwise operations: float32, in this order


class Function(StrEnum):
    """Float32 functions of one number; `arithmetic.functions` fixes their every rounding."""

    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky_relu"
    HARD_SIGMOID = "hard_sigmoid"
    HARD_SWISH = "hard_swish"
    SIGMOID = "sigmoid"
    SILU = "silu"
    TANH = "tanh"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"


@dataclass(frozen=True, slots=True)
class Affine:
    """v = v * multiplier + bias, two roundings. Both name float32 tensors of one length that divides v's count.

    Element e of an item (flattened) uses entry e mod length: length 1 is a scalar, length C is per channel.
    """

    multiplier: str
    bias: str


@dataclass(frozen=True, slots=True)
class Apply:
    """v = function(v). `parameter` is the negative slope of leaky_relu, and 0 elsewhere."""

    function: Function
    parameter: float = 0.0


@dataclass(frozen=True, slots=True)
class Add:
    """v = v + float32(a) * scale_a, two roundings, for an earlier activation a whose count divides v's count.

    Element e of an item uses a's element e mod count(a): a (1, 1, C) operand is repeated over the image.
    """

    operand: str


@dataclass(frozen=True, slots=True)
class Multiply:
    """v = v * (float32(a) * scale_a), two roundings; the operand is addressed as in `Add`."""

    operand: str


Operation = Affine | Apply | Add | Multiply


# ---------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class Linear:
    """The device applies `maps` in order, all integers mod 2**32; the result is an `Accumulator`."""

    name: str
    source: str
    maps: tuple[LinearMap, ...]
    output: Accumulator


@dataclass(frozen=True, slots=True)
class Pointwise:
    """v = float32(source); v goes through `operations` in order; then the output.

    The first operation is an `Affine` (the dequantisation). An `Activation` output is requantised:
    v * (1/scale) clamped to the limits, then rounded half to even. A `Real` output is v itself.
    """

    name: str
    source: str
    operations: tuple[Operation, ...]
    output: Activation | Real


class Reduction(StrEnum):
    """How a `Pool` joins the integers of a window."""

    MAXIMUM = "maximum"
    SUM = "sum"


@dataclass(frozen=True, slots=True)
class Window:
    """The indices start, start+step, ... below stop along one axis of an image; never empty."""

    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """Output (i, j, c) joins source[rows[i], columns[j], c]: every pooling, padding and adaptive form.

    MAXIMUM gives an `Activation` of the source's scale and bits; SUM gives an `Accumulator`.
    """

    name: str
    source: str
    reduction: Reduction
    rows: tuple[Window, ...]
    columns: tuple[Window, ...]
    output: Activation | Accumulator


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Joins activations of one scale and bits along `axis` (0 is the first axis of an item)."""

    name: str
    sources: tuple[str, ...]
    axis: int
    output: Activation


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same integers in row-major order under another shape."""

    name: str
    source: str
    output: Activation


@dataclass(frozen=True, slots=True)
class Permute:
    """Axis k of the output is axis `axes[k]` of the source."""

    name: str
    source: str
    axes: tuple[int, ...]
    output: Activation


@dataclass(frozen=True, slots=True)
class Slice:
    """Along every axis, the indices of one window."""

    name: str
    source: str
    windows: tuple[Window, ...]
    output: Activation


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros before and after along every axis."""

    name: str
    source: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    output: Activation


@dataclass(frozen=True, slots=True)
class Softmax:
    """exp(x - max) / sum over the last axis (or its logarithm), in float32 with a fixed order of additions."""

    name: str
    source: str
    logarithm: bool
    output: Activation | Real


Step = Linear | Pointwise | Pool | Concatenate | Reshape | Permute | Slice | Pad | Softmax


# ---------------------------------------------------------------- the face of the network


class Layout(StrEnum):
    """How a user's array maps onto an item: images come as (channels, height, width)."""

    CHANNELS_FIRST = "channels_first"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Input:
    """The user's float32 array, quantised with the activation's scale (never a scale of the array's own)."""

    name: str
    layout: Layout
    output: Activation


@dataclass(frozen=True, slots=True)
class Output:
    """Which step's value the user receives, and in which layout."""

    source: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the input: resize the short side, crop the centre, `(rgb - mean) / deviation`.

    `interpolation` is `bicubic` or `bilinear`; `mean` and `deviation` are on the 0..255 scale, one per channel.
    """

    crop_size: int
    resize_size: int
    interpolation: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """All of a plan but its tensors: what the trusted side keeps after it has dropped the weights."""

    model: str
    input: Input
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = field(default=())
