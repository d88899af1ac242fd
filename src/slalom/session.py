"""The door most users come through: a plan, a protection level, NumPy in and NumPy out."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.trusted.policy import Policy, Protection, parse_policy
from slalom.trusted.session import SessionOptions, SessionReport, TrustedSession
from slalom.trusted.transport import call_device

_PORT = ("load", "run_ahead", "compute", "run", "close")


class Session:
    """Runs images through a plan on a device nobody has to trust.

    >>> with slalom.Session(plan, protection="private") as session:
    ...     logits = session.run(images)

    plan: what `slalom.compile` made or `Plan.load` read.
    protection: device, enclave, verified, blinded or private. check: direct, batched or preprocessed.
    rounds: independent checks of every linear result, 1..64. schedule: ahead or layerwise (`verified` only).
    device: "cpu" for an in-process device on torch, or any object with the methods of `link.port.DevicePort`.
    threads: of the trusted side, all cores by default. isa: numpy, portable, avx2 or avx512, the fastest by default.
    micro_batches: parts of a batch in flight at once. timeout_seconds bounds every wait for the device, which is
    `load`, every answer, and `close`.

    Thread-safe: requests take turns. Raises ApiMisuse for arguments that do not fit together, DeviceError for a device
    that cannot load the plan.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        protection: str = "private",
        check: str = "preprocessed",
        rounds: int = 1,
        schedule: str = "ahead",
        device: str | DevicePort = "cpu",
        threads: int | None = None,
        isa: str | None = None,
        micro_batches: int = 2,
        timeout_seconds: float = 120.0,
    ) -> None:
        if not isinstance(plan, Plan):
            raise ApiMisuse(f"plan must be a slalom.Plan, not {type(plan).__name__}", hint="slalom.compile makes one")
        self.policy: Policy = parse_policy(protection, check, rounds, schedule)
        self.plan_digest = plan.digest
        self._dispatch = make_dispatch(_parse_isa(isa), threads)
        self._timeout_seconds = timeout_seconds
        self._device: DevicePort | None = None
        options = SessionOptions(self.policy, micro_batches, timeout_seconds)
        try:
            self._device = _find_device(device) if self.policy.protection is not Protection.ENCLAVE else None
            self._trusted = TrustedSession(plan, self._device, self._dispatch, options)
        except BaseException:
            self._dispatch.close()
            raise
        self._load_device(plan)

    def run(self, images: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """The network's output for float32 images [batch, ...]: one array, or a tuple for several outputs.

        Raises InputError for unusable images; IntegrityError, with the session ended, where a check fails.
        """
        outputs = self._trusted.run(images)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def prepare_masks(self, images: int) -> None:
        """Makes the masks for one request of `images` ahead of time, so that it does not wait for them."""
        self._trusted.prepare_masks(images)

    @property
    def report(self) -> SessionReport:
        """Figures of the session so far: soundness, bytes, seconds, memory."""
        return self._trusted.report

    def close(self) -> None:
        """Ends the session: secrets are overwritten, the device is released. May be called twice.

        Raises DeviceError, with the session ended, where the device's own `close` fails or takes too long.
        """
        self._trusted.close()
        self._dispatch.close()
        if self._device is not None:
            call_device(self._device.close, self._timeout_seconds)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeviceError:
            if error is None:  # else a device that fails to close would hide why the session ended
                raise

    def _load_device(self, plan: Plan) -> None:
        """LOAD-BEARING: once the trusted side has its copies, for a device in this process could write to the plan."""
        if self._device is None:
            return
        load = self._device.load
        try:
            call_device(lambda: load(plan), self._timeout_seconds)
        except BaseException:
            self._trusted.close()
            self._dispatch.close()
            raise


def _parse_isa(isa: str | None) -> Isa | None:
    if isa is None:
        return None
    try:
        return Isa(isa)
    except ValueError as error:
        raise ApiMisuse(f"unknown instruction set {isa!r:.40}", hint=f"choose one of {', '.join(Isa)}") from error


def _find_device(device: str | DevicePort) -> DevicePort:
    if isinstance(device, str):
        if device != "cpu":
            raise ApiMisuse(f"unknown device {device!r:.60}", hint="choose cpu, or pass a device object")
        try:
            from slalom.device.local import LocalDevice
        except ModuleNotFoundError as error:
            raise ApiMisuse(
                f"the cpu device needs {error.name}, which is not installed",
                hint="install the device extra, see the README",
            ) from error
        return LocalDevice()
    missing = [name for name in _PORT if not callable(getattr(device, name, None))]
    if missing:
        raise ApiMisuse(f"a device has a method {missing[0]}; {type(device).__name__} has none", hint="see DevicePort")
    return device
