"""From the MODEL argument to a plan: a `.slalom` file, a name of the zoo, or `package.module:factory`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slalom.bench.evaluate import FloatNetwork, noise_images
from slalom.cli.screen import waiting
from slalom.errors import ApiMisuse, ModelError
from slalom.plan import Plan
from slalom.plan.steps import Preprocessing

if TYPE_CHECKING:
    from slalom.zoo.catalogue import ZooEntry

NOISE_COUNT = 16
SEED = 0


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is found and compiled. `image_size` replaces the network's own, None keeps it."""

    weights: Path | None = None
    image_size: int | None = None
    calibration: Path | None = None
    bits: int = 12


@dataclass(frozen=True)
class Network:
    """A plan and, where it was compiled here, the float network. `origin` says where the weights come from."""

    plan: Plan
    float_network: FloatNetwork | None
    origin: str


def open_network(model: str, options: NetworkOptions) -> Network:
    """Loads a plan file, or loads and compiles a network. Raises ModelError, InputError, ApiMisuse."""
    if model.endswith(".slalom"):
        if options.weights is not None or options.image_size is not None or options.calibration is not None:
            raise ApiMisuse("--weights, --image-size and --calibration are for networks that are compiled now")
        return Network(Plan.load(model), None, "in the plan")
    try:
        return _compile(model, options)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"compiling a network needs {error.name}, which is not installed",
            hint="install the importer,zoo extra, see the README",
        ) from error


def _compile(model: str, options: NetworkOptions) -> Network:
    import torch

    from slalom.importer import CompileOptions
    from slalom.importer import compile as compile_network
    from slalom.zoo.catalogue import load_module

    with waiting(f"loading {model}"):
        loaded = load_module(model, options.weights, SEED)
    preprocessing, shape = _face(model, loaded.entry, options)
    images = _calibration(loaded.entry, preprocessing, shape, options)
    with waiting(f"compiling {model}"):
        example = torch.from_numpy(images[:2])
        plan = compile_network(
            loaded.module,
            (example,),
            list(torch.split(torch.from_numpy(images), 8)),
            options=CompileOptions(activation_bits=options.bits),
            name=model,
            preprocessing=preprocessing,
            classes=loaded.entry.class_names(),
        )

    def float_network(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            outputs = loaded.module(torch.from_numpy(batch))
        first: np.ndarray = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()
        return first.reshape(len(first), -1)

    return Network(plan, float_network, loaded.entry.weights)


def _face(model: str, entry: ZooEntry, options: NetworkOptions) -> tuple[Preprocessing | None, tuple[int, ...]]:
    shape, preprocessing, size = entry.input_shape, entry.preprocessing, options.image_size
    if shape is None:
        raise ModelError(f"{model} does not say its input shape", hint="give the module an input_shape attribute")
    if size is None:
        return preprocessing, shape
    if size < 1 or len(shape) != 3:
        raise ApiMisuse(f"--image-size {size} does not fit a network of input shape {shape}")
    if preprocessing is not None:
        resize = max(size, round(preprocessing.resize_size * size / preprocessing.crop_size))
        preprocessing = replace(preprocessing, crop_size=size, resize_size=resize)
    return preprocessing, (shape[0], size, size)


def _calibration(
    entry: ZooEntry, preprocessing: Preprocessing | None, shape: tuple[int, ...], options: NetworkOptions
) -> np.ndarray:
    """Photos for trained networks, noise for those with random weights; never the images of the evaluation."""
    from slalom.zoo.calibration import calibration_photos, load_calibration

    trained = not entry.weights.startswith("random")
    if preprocessing is not None and (options.calibration is not None or trained):
        return load_calibration(calibration_photos(options.calibration), preprocessing)
    return noise_images(shape, NOISE_COUNT, seed=SEED + 1)
