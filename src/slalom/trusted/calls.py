"""Calls of a device that may hang or fail: every wait is bounded, every failure becomes an error that a user sees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from slalom.errors import DeviceError, SlalomError
from slalom.link.port import DevicePort
from slalom.link.remote import RemoteDevice

Answer = TypeVar("Answer")


def call_device(call: Callable[[], None], timeout_seconds: float) -> None:
    """Calls `load` or `close` of a device in a thread of its own. Raises DeviceError where it fails or takes longer."""
    future: Future[None] = Future()

    def fulfil() -> None:
        try:
            call()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            future.set_exception(device_failure(error))

    threading.Thread(target=fulfil, name="slalom-device", daemon=True).start()
    wait_for(future, timeout_seconds)


def wait_for(future: Future[Answer], timeout_seconds: float) -> Answer:
    try:
        return future.result(timeout_seconds)
    except FutureTimeoutError as error:
        raise DeviceError(f"the device did not answer within {timeout_seconds:g} seconds") from error


def device_failure(error: BaseException) -> SlalomError:
    """The error a user sees. LOAD-BEARING: never the device's own StopIteration, which would end a walk for it."""
    if isinstance(error, SlalomError):
        return error
    failure = DeviceError(f"the device failed with {type(error).__name__}")
    failure.__cause__ = error
    return failure


def settle(device: DevicePort) -> None:
    """An empty message there and back over a link: whatever else comes before it was not asked for."""
    if isinstance(device, RemoteDevice):
        device.ping()
