"""Runs a network on images under a policy and compares it with the float network."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slalom.bench.memory import resident_bytes
from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.reporting import Report, Worker
from slalom.session import Session

FloatNetwork = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Samples:
    """Images float32 [N, ...], and for each its name and label (None where not known)."""

    images: np.ndarray
    names: tuple[str, ...]
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class Prediction:
    """One image's answer: class, softmax confidence 0..1, and its label and the float network's class if known."""

    name: str
    predicted: int
    confidence: float
    label: int | None
    float_predicted: int | None


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation. Agreement and error compare logits with the float network's, None without one.

    Predictions are made of the first output, row by row; `outputs_sha256` is of all outputs.
    `max_logit_error` is the largest absolute difference; `seconds` is the online time, masks made ahead not counted.
    """

    images: int
    seconds: float
    report: Report
    workers: tuple[Worker, ...]
    dealers: tuple[Worker, ...]
    predictions: tuple[Prediction, ...]
    agreement_with_float: float | None
    max_logit_error: float | None
    top1: float | None
    outputs_sha256: str
    resident_bytes: int
    peak_resident_bytes: int

    @property
    def images_per_second(self) -> float:
        """Online throughput."""
        return self.images / self.seconds if self.seconds > 0 else 0.0


def evaluate(
    session: Session, samples: Samples, batch_size: int, float_network: FloatNetwork | None, progress: Progress
) -> Evaluation:
    """Runs every sample through the session in batches. Raises what `Session.run` raises.

    The masks of a batch are made before its clock starts, unless the session has a mask bank.
    """
    batches = [samples.images[begin : begin + batch_size] for begin in range(0, len(samples.images), batch_size)]
    pieces: list[tuple[np.ndarray, ...]] = []
    seconds = 0.0
    for batch in batches:
        if not session.has_mask_bank:
            session.prepare_masks(len(batch))
        begin = time.perf_counter()
        answer = session.run(batch)
        seconds += time.perf_counter() - begin
        pieces.append(answer if isinstance(answer, tuple) else (answer,))
        progress(len(batch))
    outputs = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
    logits = outputs[0].reshape(len(outputs[0]), -1)
    floats = None if float_network is None else np.concatenate([float_network(batch) for batch in batches])
    predictions = _predictions(samples, logits, floats)
    resident, peak = resident_bytes()
    return Evaluation(
        images=len(samples.images),
        seconds=seconds,
        report=session.report,
        workers=session.workers,
        dealers=session.dealers,
        predictions=predictions,
        agreement_with_float=None if floats is None else float(np.mean(logits.argmax(1) == floats.argmax(1))),
        max_logit_error=None if floats is None else float(np.abs(logits - floats).max()),
        top1=_top1(predictions),
        outputs_sha256=outputs_sha256(outputs),
        resident_bytes=resident,
        peak_resident_bytes=peak,
    )


def outputs_sha256(outputs: Sequence[np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of every output in order, each float32 little-endian in row-major order."""
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(np.ascontiguousarray(output, dtype="<f4").data)
    return digest.hexdigest()


def random_samples(plan: Plan, count: int, seed: int) -> Samples:
    """Seeded noise, smoothed so that neighbouring pixels agree, spread over the plan's input range."""
    from slalom.trusted.faces import user_shape

    entry = plan.graph.input
    shape = user_shape(entry.output.shape, entry.layout)
    images = noise_images(shape, count, seed)
    limit = np.float32(entry.output.scale * entry.output.limit)
    return Samples(
        np.clip(images, -limit, limit), tuple(f"noise_{index:03d}" for index in range(count)), (None,) * count
    )


def noise_images(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """Float32 [count, *shape], mean 0 and deviation 1: a coarse and a fine pattern added, for untrained networks."""
    generator = np.random.default_rng(seed)
    fine = generator.standard_normal((count, *shape), dtype=np.float32)
    coarse = generator.standard_normal((count, *shape[:-2], *(1,) * min(2, len(shape))), dtype=np.float32)
    return np.asarray((fine + coarse) * np.float32(0.7071), dtype=np.float32)


def _predictions(samples: Samples, logits: np.ndarray, floats: np.ndarray | None) -> tuple[Prediction, ...]:
    if logits.shape[1] < 1:
        raise ModelError("the network's output has no classes to evaluate")
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    confidence = shifted.max(axis=1) / shifted.sum(axis=1)
    return tuple(
        Prediction(
            name=samples.names[index],
            predicted=int(logits[index].argmax()),
            confidence=float(confidence[index]),
            label=samples.labels[index],
            float_predicted=None if floats is None else int(floats[index].argmax()),
        )
        for index in range(len(logits))
    )


def _top1(predictions: Sequence[Prediction]) -> float | None:
    labelled = [item for item in predictions if item.label is not None]
    return sum(item.predicted == item.label for item in labelled) / len(labelled) if labelled else None
