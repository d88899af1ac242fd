"""From the MODEL argument to a plan: a `.slalom` file, a name of the zoo, or `package.module:factory`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slalom.bench.evaluate import FloatNetwork, noise_images
from slalom.bench.float_timing import Question
from slalom.cli.arguments import require_positive
from slalom.cli.screen import waiting
from slalom.errors import ApiMisuse, ModelError, SlalomError
from slalom.plan import Plan
from slalom.plan.steps import Preprocessing

if TYPE_CHECKING:
    from slalom.zoo.catalogue import ZooEntry

NOISE_COUNT = 16
SEED = 0
NO_PREPROCESSING = "this network does not say how a photo becomes its input"
PREPROCESSING_HINT = "give the module a preprocessing attribute, a slalom.plan.steps.Preprocessing"
_MINIMUM_BITS = 6  # fewer only where the user asks for fewer
_CHECKPOINTS = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is found and compiled. `image_size` replaces the network's own, None keeps it; `threads` are of the
    float network, None for all."""

    weights: Path | None = None
    image_size: int | None = None
    calibration: Path | None = None
    bits: int = 12
    threads: int | None = None


@dataclass(frozen=True)
class Network:
    """A plan and, where it was compiled here, the float network. `origin` says where the weights come from; `ask`
    reaches the process that can time the float network, where there is one (ModelError where it cannot)."""

    plan: Plan
    float_network: FloatNetwork | None
    origin: str
    ask: Callable[[Question], object] | None = None


def is_plan_file(model: str) -> bool:
    """Whether MODEL names a plan file and not a network that would be compiled."""
    return model.endswith(".slalom")


def load_network(model: str, options: NetworkOptions) -> Network:
    """The network in a plan file. Raises ModelError, and ApiMisuse for options that only a compiler has a use for."""
    require_positive("--image-size", options.image_size)
    if options.weights is not None or options.image_size is not None or options.calibration is not None:
        raise ApiMisuse(
            "--weights, --image-size and --calibration are for networks that are compiled now",
            hint=f"{Path(model).name} is compiled already: leave them out",
        )
    return Network(Plan.load(model), None, "in the plan")


def compile_network(model: str, options: NetworkOptions) -> Network:
    """Loads and compiles a network, in this process. Raises ModelError, InputError, ApiMisuse."""
    require_positive("--image-size", options.image_size)
    if model.endswith(_CHECKPOINTS):
        raise ApiMisuse(f"{model} holds weights and no network", hint=f"slalom eval resnet_50 --weights {model}")
    try:
        with redirect_stdout(sys.stderr), _quiet_log():  # what a user's module prints is no part of the answer
            return _compile(model, options)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"compiling a network needs {error.name}, which is not installed",
            hint="install the importer,zoo extra, see the README",
        ) from error


@contextmanager
def _quiet_log() -> Iterator[None]:
    """No log meanwhile: torch logs a traceback for what it also raises, and the refusal says it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _foreign_code(model: str, doing: str) -> Iterator[None]:
    """Whatever the user's own module raises becomes a ModelError with its first line; the zoo's errors stay."""
    try:
        yield
    except SlalomError:
        raise
    except Exception as error:
        if ":" not in model:
            raise
        reason = next(iter(str(error).splitlines()), "")[:300]
        raise ModelError(
            f"{model} cannot be {doing}: {type(error).__name__}{': ' if reason else ''}{reason}",
            hint="its own code raised this",
        ) from error


def _compile(model: str, options: NetworkOptions) -> Network:
    import torch

    from slalom.bench.torch_baseline import TorchNetwork
    from slalom.importer import CompileOptions
    from slalom.importer import compile as compile_network
    from slalom.zoo.catalogue import load_module

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with waiting(f"loading {model}"), _foreign_code(model, "made"):
        loaded = load_module(model, options.weights, SEED)
    preprocessing, shape = _face(model, loaded.entry, options)
    images = _calibration(loaded.entry, preprocessing, shape, options)
    with waiting(f"compiling {model}"), _foreign_code(model, "compiled"):
        example = torch.from_numpy(images[:2])
        plan = compile_network(
            loaded.module,
            (example,),
            list(torch.split(torch.from_numpy(images), 8)),
            options=CompileOptions(options.bits, minimum_bits=min(_MINIMUM_BITS, options.bits)),
            name=model,
            preprocessing=preprocessing,
            classes=loaded.entry.class_names(),
        )

    network = TorchNetwork(loaded.module)
    return Network(plan, network, loaded.entry.weights, network.answer)


def _face(model: str, entry: ZooEntry, options: NetworkOptions) -> tuple[Preprocessing | None, tuple[int, ...]]:
    shape, preprocessing, size = entry.input_shape, entry.preprocessing, options.image_size
    if shape is None:
        raise ModelError(
            f"{model} does not say its input shape",
            hint="give the module an attribute such as input_shape = (3, 224, 224)",
        )
    if size is None:
        return preprocessing, shape
    if len(shape) != 3:
        raise ApiMisuse(f"--image-size does not fit a network of input shape {shape}", hint="leave --image-size out")
    if preprocessing is not None:
        resize = max(size, round(preprocessing.resize_size * size / preprocessing.crop_size))
        preprocessing = replace(preprocessing, crop_size=size, resize_size=resize)
    return preprocessing, (shape[0], size, size)


def _calibration(
    entry: ZooEntry, preprocessing: Preprocessing | None, shape: tuple[int, ...], options: NetworkOptions
) -> np.ndarray:
    """Photos for trained networks, noise for those with random weights; never the images of the evaluation."""
    from slalom.zoo.calibration import calibration_photos, load_calibration

    if options.calibration is not None and preprocessing is None:
        raise ApiMisuse(NO_PREPROCESSING, hint=PREPROCESSING_HINT)
    trained = not entry.weights.startswith("random")
    if preprocessing is not None and (options.calibration is not None or trained):
        return load_calibration(calibration_photos(options.calibration), preprocessing)
    return noise_images(shape, NOISE_COUNT, seed=SEED + 1)
