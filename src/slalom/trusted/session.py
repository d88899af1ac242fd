"""A trusted session: from a plan and a policy to checked outputs, with an end that leaves no secret behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from slalom.arithmetic.dispatch import Dispatch, make_dispatch
from slalom.arithmetic.engine import LinearEngine, make_engine
from slalom.arithmetic.fused import MAXIMUM_PROBES
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, MaskError
from slalom.link.port import DevicePort
from slalom.link.remote import RemoteDevice
from slalom.plan import Plan
from slalom.trusted.bank import MaskBank, MaskBankOptions, MaskFigures
from slalom.trusted.checker import CheckBook
from slalom.trusted.dealt import Dealer, DealtMaker
from slalom.trusted.faces import present_outputs, quantise_images
from slalom.trusted.masks import MaskMaker, MaskSet, prepare_maps
from slalom.trusted.model import TrustedModel, make_model
from slalom.trusted.policy import Policy, Protection
from slalom.trusted.probes import ProbeSource, make_probe_source
from slalom.trusted.randomness import KeyMemory, PlainMemory, Randomness
from slalom.trusted.recorder import Recorder, Side
from slalom.trusted.recycling import Recycler
from slalom.trusted.refill import Refill
from slalom.trusted.soundness import bits, union_error
from slalom.trusted.traffic import Traffic
from slalom.trusted.transport import Carrier, Outputs
from slalom.trusted.vault import make_vault
from slalom.trusted.walk import Crossing, Inside, Walk, WalkGenerator
from slalom.trusted.workspace import Workspace

_DEVICE_OR_DEALER = "the device or the dealer is faulty or hostile: use neither again"


@dataclass(frozen=True)
class SessionOptions:
    """How a session runs. `micro_batches`: how many parts of a batch are in flight; `timeout_seconds` bounds waits;
    `key_memory` gives memory of so many bytes in which the key is kept; `recorder` takes down when each side worked;
    `mask_bank`: how masks are made in the background."""

    policy: Policy
    micro_batches: int = 2
    timeout_seconds: float = 120.0
    key_memory: Callable[[int], KeyMemory] = PlainMemory
    recorder: Recorder | None = None
    mask_bank: MaskBankOptions | None = None

    def __post_init__(self) -> None:
        if type(self.micro_batches) is not int or self.micro_batches < 1:
            raise ApiMisuse(f"micro_batches must be a whole number of at least 1, not {self.micro_batches!r:.40}")
        seconds = self.timeout_seconds
        if type(seconds) not in (int, float) or not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ApiMisuse(f"timeout_seconds must be positive and finite, not {seconds!r:.40}")


@dataclass(frozen=True)
class SessionReport:
    """Figures of a session so far. Seconds are busy time; bytes count what crossed the boundary and what is held.

    exposed: images that a device worked on, failed requests counted. error: a bound on the probability that any of
    its wrong results passed; 1 at levels that check nothing.
    """

    images: int
    exposed: int
    seconds: float
    error: Fraction
    bytes_to_device: int
    bytes_from_device: int
    trusted_seconds: float
    device_seconds: float
    mask_seconds: float
    bytes_to_dealer: int
    bytes_from_dealer: int
    setup_seconds: float
    steady_bytes: Mapping[str, int]
    peak_in_flight_bytes: int
    masks: MaskFigures

    @property
    def soundness_bits(self) -> float:
        """-log2 of the error."""
        return bits(self.error)


class TrustedSession:
    """Runs images through a plan under a policy. Thread-safe: requests take turns.

    The first failure inside a run ends the session and destroys its probes and masks; later calls raise ApiMisuse.
    """

    def __init__(
        self,
        plan: Plan,
        device: DevicePort | None,
        dispatch: Dispatch,
        options: SessionOptions,
        dealer: Dealer | None = None,
    ) -> None:
        begin = time.perf_counter()
        if device is None and options.policy.protection is not Protection.ENCLAVE:
            raise ApiMisuse(f"protection {options.policy.protection} needs a device")
        self._options = options
        self._policy = options.policy
        self._dispatch = dispatch
        self._device = device
        self._randomness = Randomness(options.key_memory)
        self._lock = threading.Lock()
        self._ended: str | None = None
        self._model: TrustedModel = make_model(plan)
        _require_probes_fit(self._model, self._policy)
        self._inside = self._prepare_inside(plan)
        self._probes = self._prepare_probes(plan)
        self._background: Dispatch | None = None
        self._dealer = dealer
        self._memory = Recycler()
        self._dealt: DealtMaker | None = None
        self._refill: Refill | None = None
        self._masks = self._prepare_masks(plan)
        self._traffic = Traffic(recorder=options.recorder)
        self._workspace = Workspace()
        self._images = 0
        self._exposed = 0
        self._seconds = 0.0
        self._peak_in_flight = 0
        self._setup_seconds = time.perf_counter() - begin

    @property
    def report(self) -> SessionReport:
        """The figures so far."""
        return SessionReport(
            images=self._images,
            exposed=self._exposed,
            seconds=self._seconds,
            error=self._error(),
            bytes_to_device=self._traffic.bytes_to_device,
            bytes_from_device=self._traffic.bytes_from_device,
            trusted_seconds=self._traffic.trusted_seconds - (self._masks.maker.inline_seconds if self._masks else 0.0),
            device_seconds=self._traffic.device_seconds,
            mask_seconds=sum(maker.seconds for maker in self._makers),
            bytes_to_dealer=self._dealt.bytes_to_dealer if self._dealt else 0,
            bytes_from_dealer=self._dealt.bytes_from_dealer if self._dealt else 0,
            setup_seconds=self._setup_seconds,
            steady_bytes=self._held_bytes(),
            peak_in_flight_bytes=self._peak_in_flight,
            masks=self._masks.figures if self._masks else MaskFigures(),
        )

    @property
    def is_over(self) -> bool:
        """Whether it was closed, or ended by a failure."""
        return self._ended is not None

    def prepare_masks(self, images: int) -> None:
        """Makes the masks for one request of `images` ahead of it. Does nothing at levels without masks.

        Raises ApiMisuse unless `images` is a whole number of at least 1.
        """
        if type(images) is not int or images < 1:
            raise ApiMisuse(f"masks are made for a whole number of images, at least 1, not {images!r:.40}")
        self._randomness.require_process()
        with self._lock:
            self._require_open()
            if self._masks is not None:
                for part in self._split(images):
                    self._masks.prepare(part.stop - part.start, self._dealt)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs, float32, for float32 images [B, ...] in the layout of the plan's input.

        Raises InputError for unusable images (the session goes on), IntegrityError and every other error of a run
        with the session ended and its secrets destroyed.
        """
        self._randomness.require_process()
        with self._lock:
            self._require_open()
            activation = quantise_images(self._model, images, self._dispatch)
            begin = time.perf_counter()
            masks = self._reserve(len(images))  # before anything is exposed: what it raises ends no session
            finished = False
            self._exposed += 0 if self._policy.protection is Protection.ENCLAVE else len(images)
            try:
                outputs = self._run(activation, masks)
                finished = True
            except IntegrityError as error:
                if self._dealt is None:
                    raise
                message = f"{error}; a dealer made its mask images"
                raise IntegrityError(message, step=error.step, hint=_DEVICE_OR_DEALER) from error
            finally:
                if not finished:
                    self._destroy("an earlier request failed")
            self._seconds += time.perf_counter() - begin
            self._images += len(images)
            return present_outputs(self._model, outputs)

    def close(self) -> None:
        """Ends the session and destroys its secrets; may be called twice."""
        if self._masks is not None:
            self._masks.fail(MaskError("the session was closed"))  # whoever waits for masks holds the lock
        with self._lock:
            self._destroy("it was closed")

    # ------------------------------------------------------------ preparation

    def _prepare_inside(self, plan: Plan) -> Inside | None:
        if self._policy.protection is not Protection.ENCLAVE and not self._policy.protection.masked:
            return None
        engine = make_engine(self._dispatch)
        return Inside(engine, prepare_maps(engine, self._model, plan))

    def _prepare_probes(self, plan: Plan) -> ProbeSource | None:
        if not self._policy.protection.checked:
            return None
        return make_probe_source(self._model, plan, self._policy, self._randomness, self._dispatch)

    def _prepare_masks(self, plan: Plan) -> MaskBank | None:
        self._makers: list[MaskMaker] = []
        if not self._policy.protection.masked or self._inside is None:
            return None
        maker = self._make_maker(self._inside.engine, self._dispatch)
        options = self._options.mask_bank
        if options is None:
            self._dealt = self._make_dealt(self._inside.engine, self._dispatch)
            return MaskBank(maker)
        needed = maker.set_bytes(self._split(options.request)[0].stop)
        if options.spill is None and needed > options.memory:
            raise ApiMisuse(
                f"masks for one micro-batch take {needed / 1e9:.2f} GB, and the mask bank may take "
                f"{options.memory / 1e9:.2f} GB",
                hint="allow more memory, name a folder to spill to, or ask for fewer images at once",
            )
        vault = None
        if options.spill is not None:
            vault = make_vault(options.spill, bytes.fromhex(plan.digest), self._options.key_memory)
        bank = MaskBank(maker, options, vault)
        batches = [part.stop - part.start for part in self._split(options.request)]
        self._background = make_dispatch(self._dispatch.isa, self._dispatch.threads, background=True)
        engine = make_engine(self._background)
        self._dealt = self._make_dealt(engine, self._background)
        behind = self._dealt or self._make_maker(engine, self._background)
        self._refill = Refill(bank, behind, batches)
        return bank

    def _make_dealt(self, engine: LinearEngine, dispatch: Dispatch) -> DealtMaker | None:
        """What makes masks with the dealer's help, where there is one; it is asked by nobody else."""
        if self._dealer is None or self._inside is None:
            return None
        timeout = self._options.timeout_seconds
        maps, memory = self._inside.maps, self._memory
        dealt = DealtMaker(self._dealer, self._model, engine, maps, self._randomness, dispatch, timeout, memory)
        self._makers.append(dealt)
        return dealt

    def _make_maker(self, engine: LinearEngine, dispatch: Dispatch) -> MaskMaker:
        maps = {} if self._inside is None else self._inside.maps
        maker = MaskMaker(self._model, engine, maps, self._randomness, dispatch, self._memory)
        self._makers.append(maker)
        return maker

    # ------------------------------------------------------------ one request

    def _reserve(self, images: int) -> list[MaskSet | None]:
        """The masks of a request, a set for each micro-batch; None at levels without masks."""
        batches = [part.stop - part.start for part in self._split(images)]
        if self._masks is None:
            return [None for _ in batches]
        return [*self._masks.reserve(batches, self._options.timeout_seconds)]

    def _run(self, activation: np.ndarray, masks: Sequence[MaskSet | None]) -> list[np.ndarray]:
        parts = [activation[part] for part in self._split(len(activation))]
        on_device = self._policy.protection is Protection.DEVICE
        results = self._run_on_device(parts) if on_device else self._walk(parts, masks)
        return [np.concatenate(pieces) for pieces in zip(*results, strict=True)]

    def _walk(self, parts: Sequence[np.ndarray], masks: Sequence[MaskSet | None]) -> list[Outputs]:
        walks = [
            Walk(self._model, self._dispatch, self._crossing(len(part), mask_set), len(part))
            for part, mask_set in zip(parts, masks, strict=True)
        ]
        generators = [walk.run(part.reshape(len(part), -1)) for walk, part in zip(walks, parts, strict=True)]
        try:
            results = self._drive(generators, parts)
        except BaseException:
            for walk in walks:
                walk.destroy()
            raise
        self._peak_in_flight = max(self._peak_in_flight, sum(walk.peak_bytes for walk in walks))
        return results

    def _drive(self, generators: Sequence[WalkGenerator], parts: Sequence[np.ndarray]) -> list[Outputs]:
        if self._device is None or self._policy.protection is Protection.ENCLAVE:
            return [self._finish(generator, index) for index, generator in enumerate(generators)]
        carrier = Carrier(self._device, self._traffic, self._options.timeout_seconds)
        if self._policy.exchanges:
            return carrier.exchange_all(generators)
        return carrier.follow(generators, parts, self._model.linear_steps)

    def _finish(self, generator: WalkGenerator, index: int) -> Outputs:
        begin = time.perf_counter()
        try:
            next(generator)
        except StopIteration as finished:
            outputs: Outputs = finished.value
            return outputs
        finally:
            end = time.perf_counter()
            self._traffic.trusted_seconds += end - begin
            self._traffic.record("output", Side.TRUSTED, index, begin, end)
        raise DeviceError("a step asked for a device where there is none")

    def _run_on_device(self, parts: Sequence[np.ndarray]) -> list[Outputs]:
        if self._device is None:
            raise ApiMisuse("protection device needs a device")
        answers = Carrier(self._device, self._traffic, self._options.timeout_seconds).run_whole(parts)
        return [self._take_outputs(answer, len(part)) for answer, part in zip(answers, parts, strict=True)]

    def _take_outputs(self, answer: Sequence[object], batch: int) -> Outputs:
        shapes = [(batch, *self._model.shape(face.source)) for face in self._model.graph.outputs]
        outputs = [item for item in answer if isinstance(item, np.ndarray) and item.dtype == np.float32]
        if len(outputs) != len(answer) or [output.shape for output in outputs] != shapes:
            raise DeviceError("the device's outputs do not have the shapes of the plan")
        # LOAD-BEARING: copies, for a device in another process may still write to the memory that it answered in
        return [output.reshape(batch, -1).copy() for output in outputs]

    def _crossing(self, batch: int, masks: MaskSet | None) -> Crossing:
        checks = None
        if self._probes is not None:
            checks = CheckBook(self._probes, self._policy.check, batch, self._randomness)
        inside = self._inside if self._policy.protection is Protection.ENCLAVE else None
        linked = isinstance(self._device, RemoteDevice)
        outbox = post = None
        if isinstance(self._device, RemoteDevice):
            outbox = self._device.outbox
            post = self._device.post
        return Crossing(inside, checks, masks, self._policy.exchanges, self._workspace, outbox, post, linked)

    def _split(self, count: int) -> list[slice]:
        parts = min(self._options.micro_batches, count)
        # LOAD-BEARING: the largest first, for it decides the memory of a link, which nothing may use when it grows
        edges = [-(-count * part // parts) for part in range(parts + 1)]
        return [slice(begin, end) for begin, end in itertools.pairwise(edges)]

    # ------------------------------------------------------------ the end

    def _require_open(self) -> None:
        if self._ended is not None:
            raise ApiMisuse(f"the session is over: {self._ended}", hint="open a new one")

    def _destroy(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._randomness.destroy()
        if self._refill is not None:
            self._refill.stop(self._options.timeout_seconds)
        if self._probes is not None:
            self._probes.destroy()
        if self._masks is not None:
            self._masks.destroy()
        if self._background is not None:
            self._background.close()
        self._workspace.destroy()
        self._memory.end()

    # ------------------------------------------------------------ figures

    def _error(self) -> Fraction:
        if not self._policy.protection.checked:
            return Fraction(1)
        return union_error(self._policy, len(self._model.linear_steps), self._exposed)

    def _held_bytes(self) -> Mapping[str, int]:
        programs = sum(
            getattr(operation, name).nbytes
            for program in self._model.programs.values()
            for operation in program.operations
            for name in ("multiplier", "bias", "wide_multiplier", "wide_bias")
            if hasattr(operation, name)
        )
        held = {"parameters": programs}
        if self._inside is not None:
            held["weights"] = sum(item.weight.nbytes for maps in self._inside.maps.values() for item in maps.maps)
        if self._probes is not None:
            for kind, size in self._probes.held_bytes.items():
                held[kind] = held.get(kind, 0) + size
        if self._masks is not None:
            held["mask_images"] = self._masks.figures.ready_bytes
        return held


def _require_probes_fit(model: TrustedModel, policy: Policy) -> None:
    """One pass carries a probe image for each round of each linear step that reads its value."""
    consumers = max((len(steps) for steps in model.flow.consumers.values()), default=0)
    if policy.protection.checked and policy.rounds * consumers > MAXIMUM_PROBES:
        raise ApiMisuse(
            f"{policy.rounds} rounds are too many where {consumers} linear steps read one value",
            hint=f"choose at most {MAXIMUM_PROBES // consumers} rounds",
        )
