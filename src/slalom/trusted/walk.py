"""One micro-batch through the network, on the trusted side: a generator that asks for claims and judges them.

It yields an `Ask` whenever it needs something from the device and receives the claims; who carries the ask (in process,
over a link, ahead of time) is not its business. It ends with the outputs, float32 [B, count] each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.engine import LinearEngine, PreparedMaps
from slalom.arithmetic.field import Elements
from slalom.arithmetic.fused import PACKED_LIMIT, PassInput, PassOutput, Pooling, Values, Words, run_pass
from slalom.arithmetic.moves import Move, apply_move
from slalom.arithmetic.pieces import StreamedClaim, StreamedWords, whole_claim
from slalom.arithmetic.pointwise import Program
from slalom.arithmetic.pooling import pool
from slalom.errors import IntegrityError
from slalom.link.intake import take_packed, take_words
from slalom.link.ticket import Post
from slalom.plan.steps import Linear, Pointwise, Pool, Shape, Step
from slalom.plan.validation import sources_of
from slalom.trusted.checker import CheckBook, Examined, Verified, hazardous_accept_unchecked
from slalom.trusted.masks import MaskSet, SpentMask
from slalom.trusted.model import TrustedModel
from slalom.trusted.workspace import Borrowed, Workspace


@dataclass(frozen=True, repr=False)
class Ask:
    """What the trusted side wants: the claims of `steps`, all of which read one value.

    `words` is that value as the device may see it (int32 blinded words, or an int16 activation where the level lets
    the device see it), [B, *shape]; an ask that was posted, whose words have gone; None where the device runs ahead and
    has it already.
    """

    steps: tuple[Linear, ...]
    words: np.ndarray | Post | None


_SCRATCH = ""  # the name of no value

Claim = np.ndarray | StreamedClaim
Claims = Sequence[Claim]
WalkGenerator = Generator[Ask, Claims, list[np.ndarray]]


@dataclass(frozen=True)
class Inside:
    """The linear steps computed by the trusted side itself (`enclave`)."""

    engine: LinearEngine
    maps: Mapping[str, PreparedMaps]


@dataclass(frozen=True)
class Crossing:
    """How linear results come about: inside, or from the device with checks, masks, both, or neither.

    `exchanges`: whether values cross step by step; otherwise the device runs ahead. `outbox`: where blinded words
    int32 [B, *shape] are written so that the device reads them there, None for memory of the trusted side's own.
    `post`: asks for claims before the blinded words are made, where these can go to the device in pieces; else gives
    None. `workspace` lends memory for values. `pieces`: whether the device is behind a link, through which a claim may
    come in pieces.
    """

    inside: Inside | None
    checks: CheckBook | None
    masks: MaskSet | None
    exchanges: bool
    workspace: Workspace
    outbox: Callable[[Shape], Words] | None = None
    post: Callable[[Sequence[str], Shape], Post | None] | None = None
    pieces: bool = False


@dataclass(frozen=True, repr=False)
class _Source:
    """The integers a pass reads; `claim_of` is set where they are a claim of the device, perhaps still to come."""

    integers: Claim
    program: Program | None
    operands: Mapping[str, np.ndarray]
    claim_of: Linear | None = None


@dataclass(frozen=True, repr=False)
class _Outgoing:
    """How the value of a pass goes on: who reads it, under which mask, where the blinded words are written, and whether
    the activation itself is read again here.

    They are written before the claim that they follow from is judged: under a mask of their own they are uniform
    whatever the verdict, so whoever reads them early learns nothing (decision 0017).
    """

    consumers: tuple[Linear, ...]
    mask: SpentMask | None
    room: Words | Post | None
    kept: bool


class Walk:
    """The state of one micro-batch: which verified values are held, which claims and masks are outstanding."""

    def __init__(self, model: TrustedModel, dispatch: Dispatch, crossing: Crossing, batch: int) -> None:
        self._model = model
        self._dispatch = dispatch
        self._crossing = crossing
        self._batch = batch
        self._held: dict[str, np.ndarray] = {}
        self._claims: dict[str, Claim] = {}
        self._mask_images: dict[str, Words] = {}
        self._pooled: dict[str, np.ndarray] = {}  # by the pool whose maxima a pass has written already
        self._open_mask: SpentMask | None = None
        self._borrowed = Borrowed(crossing.workspace)
        self.peak_bytes = 0

    def run(self, activation: np.ndarray) -> WalkGenerator:
        """Walks from the input activation, int16 [B, count], to the outputs. Raises IntegrityError at the first lie."""
        name = self._model.graph.input.name
        yield from self._deliver(name, _Source(activation, None, {}))
        for index, step in enumerate(self._model.graph.steps):
            if not isinstance(step, Linear):
                yield from self._deliver(step.name, (yield from self._source(step)))
            self._forget(index)
        # copies: an output that only moved lies in borrowed memory
        outputs = [self._held[output.source].copy() for output in self._model.graph.outputs]
        self._held.clear()
        self._borrowed.give_back_all()
        return outputs

    def destroy(self) -> None:
        """Overwrites the masks and probes of a walk that failed, or was left because another failed."""
        if self._open_mask is not None:
            self._open_mask.words.fill(0)
        for image in self._mask_images.values():
            image.fill(0)
        if self._crossing.masks is not None:
            self._crossing.masks.destroy()
        if self._crossing.checks is not None:
            self._crossing.checks.destroy()

    # ------------------------------------------------------------ what a step reads

    def _source(self, step: Step) -> Generator[Ask, Claims, _Source]:
        if not isinstance(step, Pointwise | Linear):
            return _Source(self._compute(step), None, {})
        operands = {name: self._held[name] for name in sources_of(step)[1:]}
        linear = self._model.linear_steps.get(step.source)
        program = self._model.programs[step.name]
        if linear is None:
            return _Source(self._held[step.source], program, operands)
        if linear.name not in self._claims:
            yield from self._ask((linear,), None)
        claim_of = None if self._crossing.inside else linear
        return _Source(self._claims.pop(linear.name), program, operands, claim_of)

    def _compute(self, step: Pool | Move) -> np.ndarray:
        if step.name in self._pooled:
            return self._pooled.pop(step.name)
        sources = [self._held[name].reshape(self._batch, *self._model.shape(name)) for name in sources_of(step)]
        if isinstance(step, Pool):
            result = pool(self._dispatch, step, sources[0], partial(self._borrowed.room, step.name))
        else:
            result = apply_move(step, sources, self._model.types)
        return np.ascontiguousarray(result).reshape(self._batch, -1)

    # ------------------------------------------------------------ what becomes of it

    def _deliver(self, name: str, source: _Source) -> Generator[Ask, Claims, None]:
        """One pass over the source: judge the claim it came from, hold the value, send it on to the device."""
        outgoing = self._open(name, self._model.flow.consumers.get(name, ()))
        if source.program is None and not outgoing.consumers:
            self._hold(name, Verified(whole_claim(source.integers)), 0)
            return
        values = self._room_for_values(name, source, outgoing)
        pooling = self._pooling(name)
        passes = [self._pass(source, outgoing, group, values, pooling) for group in range(len(self._groups))]
        self._hold(name, self._judge(source, passes, values), _size_of(source.integers))
        self._expect(outgoing.consumers, passes)
        del source  # LOAD-BEARING: a claim that lies in a slot would keep it while the next is awaited
        yield from self._send(name, outgoing, passes)

    def _open(self, name: str, consumers: tuple[Linear, ...]) -> _Outgoing:
        if self._crossing.checks is not None:
            for step in consumers:
                self._crossing.checks.open_check(step)
        if self._crossing.masks is None or not consumers:
            seen = self._crossing.inside is not None or self._crossing.exchanges  # it is sent, or computed with
            return _Outgoing(consumers, None, None, seen or not consumers or name in self._model.flow.kept)
        mask = self._open_mask = self._crossing.masks.take(name)
        self._mask_images.update(mask.images)
        return _Outgoing(consumers, mask, self._room_for_words(name, consumers), name in self._model.flow.kept)

    def _room_for_words(self, name: str, consumers: tuple[Linear, ...]) -> Words | Post | None:
        """Where the blinded words of a value go: to the device as they are made, or where it will read them."""
        shape, post, outbox = (self._batch, *self._model.shape(name)), self._crossing.post, self._crossing.outbox
        if post is not None and len(self._groups) == 1:  # one pass writes them all
            posted = post([step.name for step in consumers], shape)
            if posted is not None:
                return posted
        return None if outbox is None else outbox(shape)

    @property
    def _groups(self) -> list[slice]:
        return self._crossing.checks.groups if self._crossing.checks else [slice(0, self._batch)]

    def _room_for_values(self, name: str, source: _Source, outgoing: _Outgoing) -> np.ndarray | None:
        """Where a pass writes an activation; None where it is not kept, or nothing new is made."""
        program = source.program
        if program is None or program.output is None or not outgoing.kept:
            return None
        pool_step = self._model.flow.pooled.get(name)
        made = name if pool_step is None else pool_step.name
        return self._borrowed.room(made, (self._batch, self._model.count(made)), np.int16)

    def _pooling(self, name: str) -> Pooling | None:
        step = self._model.flow.pooled.get(name)
        return None if step is None else Pooling(step, self._model.shape(name))

    def _pass(
        self,
        source: _Source,
        outgoing: _Outgoing,
        group: int,
        values: np.ndarray | None,
        pooling: Pooling | None,
    ) -> PassOutput:
        part = self._groups[group]
        checks, linear, mask = self._crossing.checks, source.claim_of, outgoing.mask
        image = None if linear is None or self._crossing.masks is None else self._mask_images[linear.name][part]
        images = (t for step in outgoing.consumers for t in checks.probe_images(step, group)) if checks else ()
        given = PassInput(
            # a claim in pieces is read by one pass over the whole batch
            source=source.integers if isinstance(source.integers, StreamedClaim) else source.integers[part],
            mask_image=image,
            probes=checks.probes(linear, group) if checks and linear else (),
            program=source.program,
            operands={name: operand[part] for name, operand in source.operands.items()},
            probe_images=tuple(images),
            mask=None if mask is None else mask.words[part],
            kept=outgoing.kept or source.program is None,
            pooling=pooling,
        )
        room: Words | StreamedWords | None
        if isinstance(outgoing.room, Post):
            room = outgoing.room.words
        else:
            room = None if outgoing.room is None else outgoing.room.reshape(self._batch, -1)[part]
        written = None if values is None else values[part]
        scratch = partial(self._borrowed.room, _SCRATCH)
        try:
            return run_pass(self._dispatch, given, values_out=written, blinded_out=room, scratch=scratch)
        finally:
            self._borrowed.forget(_SCRATCH, ())

    def _judge(self, source: _Source, passes: list[PassOutput], written: np.ndarray | None) -> Verified:
        parts = [item.values for item in passes if item.values is not None]
        values = written if written is not None else _join(parts) if parts else None
        if source.claim_of is None:
            return Verified(values)
        examined = Examined(source.claim_of.name, values, _join([item.source_dots for item in passes]))
        checks = self._crossing.checks
        judged = hazardous_accept_unchecked(examined) if checks is None else checks.check_claim(examined)
        self._mask_images.pop(source.claim_of.name, None)
        return judged

    def _expect(self, consumers: tuple[Linear, ...], passes: list[PassOutput]) -> None:
        checks = self._crossing.checks
        if checks is None or not consumers:
            return
        dots: Elements = _join([item.output_dots for item in passes])
        rounds = dots.shape[1] // len(consumers)
        for index, step in enumerate(consumers):
            checks.expect(step, dots[:, index * rounds : (index + 1) * rounds])

    def _send(self, name: str, outgoing: _Outgoing, passes: list[PassOutput]) -> Generator[Ask, Claims, None]:
        shape = (self._batch, *self._model.shape(name))
        if not outgoing.consumers:
            return
        if self._crossing.inside is not None:
            words = self._held[name].reshape(shape)
            for step in outgoing.consumers:
                accumulator = self._crossing.inside.engine.apply(self._crossing.inside.maps[step.name], words)
                self._claims[step.name] = accumulator.reshape(self._batch, -1)
        elif outgoing.room is not None:
            yield from self._ask(outgoing.consumers, outgoing.room)
        elif self._crossing.exchanges:
            blinded = [item.blinded for item in passes if item.blinded is not None]
            # LOAD-BEARING: a copy, for what is held here is used again and the device may write to what it was given
            words = (_join(blinded) if blinded else self._held[name].copy()).reshape(shape)
            yield from self._ask(outgoing.consumers, words)

    def _ask(self, steps: tuple[Linear, ...], words: np.ndarray | Post | None) -> Generator[Ask, Claims, None]:
        claims = yield Ask(steps, words)
        if len(claims) != len(steps):
            name = steps[min(len(claims), len(steps) - 1)].name
            raise IntegrityError(f"the device gave {len(claims)} claims where {len(steps)} were asked", step=name)
        for step, claim in zip(steps, claims, strict=True):
            self._claims[step.name] = self._take(step, claim)

    def _take(self, step: Linear, claim: Claim) -> Claim:
        """The claim as rows: int32 [B, M], or uint8 [B, M, 3] where the range proof leaves it three bytes.

        One in pieces was made by the link, from this side's own plan.
        """
        packs = self._crossing.masks is None and step.output.bound < PACKED_LIMIT
        # LOAD-BEARING: from a device in this process it would be the device's own, and say what it likes
        if self._crossing.pieces and type(claim) is StreamedClaim:
            return claim if len(self._groups) == 1 else claim.gather()
        if packs and type(claim) is np.ndarray and claim.dtype == np.uint8:
            return take_packed(claim, self._batch, math.prod(step.output.shape), step.name)
        return take_words(claim, (self._batch, *step.output.shape), step.name).reshape(self._batch, -1)

    # ------------------------------------------------------------ what is held

    def _hold(self, name: str, value: Verified, read_bytes: int) -> None:
        """Keeps a value; `read_bytes` is the size of what it was just made from, still in memory beside it."""
        pool_step = self._model.flow.pooled.get(name)
        if value.values is not None and pool_step is not None:
            self._pooled[pool_step.name] = value.values
        elif value.values is not None:
            self._held[name] = value.values
        groups = (self._held, self._pooled, self._mask_images)
        alive = read_bytes + sum(array.nbytes for group in groups for array in group.values())
        alive += sum(_size_of(claim) for claim in self._claims.values())
        self.peak_bytes = max(self.peak_bytes, alive)

    def _forget(self, index: int) -> None:
        for name in self._model.flow.forgotten_after(index):
            self._held.pop(name, None)
            self._borrowed.forget(name, self._held.values())


def _join(parts: Sequence[Values] | Sequence[Words] | Sequence[Elements]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _size_of(claim: Claim) -> int:
    """Bytes in memory: none of what is still to come."""
    return 0 if isinstance(claim, StreamedClaim) else claim.nbytes
