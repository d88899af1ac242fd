"""What is in force in a worker, for people and as one integer for a link."""

from __future__ import annotations

from dataclasses import dataclass

from slalom.errors import WireError

# Landlock rules for TCP came with ABI 4, scopes (abstract sockets, signals) with ABI 6.
NETWORK_ABI = 4
SCOPES_ABI = 6

_FLAGS = (  # bit 0 upwards; the order is the protocol's and only ever grows
    "no_new_privs", "parent_death_signal", "descriptors_closed", "no_core_dumps", "landlock_network", "landlock_scopes",
    "seccomp", "relaxed_for_gpu",
)  # fmt: skip
_ABI_SHIFT = 8
_ABI_LIMIT = 256  # bits 8 to 15
_KNOWN = _ABI_LIMIT << _ABI_SHIFT  # 2^16: every integer below it has known bits alone


@dataclass(frozen=True)
class IsolationReport:
    """What is in force. A worker says it of itself: it tells of misconfiguration, and proves nothing of a hostile one.

    `landlock_abi` is 0 to 255, 0 for none. `relaxed_for_gpu` says that device files of a GPU were opened to it.
    """

    no_new_privs: bool = False
    parent_death_signal: bool = False
    descriptors_closed: bool = False
    no_core_dumps: bool = False
    landlock_abi: int = 0
    landlock_network: bool = False
    landlock_scopes: bool = False
    seccomp: bool = False
    relaxed_for_gpu: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """The protections that are not in force, in words."""
        return tuple(word for word, there in self._protections() if not there)

    @property
    def summary(self) -> str:
        """One line for people: what is in force, what is missing, what was relaxed."""
        there = [self._spoken(word) for word, is_there in self._protections() if is_there]
        line = ", ".join(there) or "no isolation"
        if self.missing and there:
            line += f"; missing: {', '.join(self.missing)}"
        return line + ("; relaxed for a gpu" if self.relaxed_for_gpu else "")

    def encode(self) -> int:
        """The report as an unsigned 32-bit integer."""
        flags = sum(1 << bit for bit, name in enumerate(_FLAGS) if getattr(self, name))
        return flags | min(self.landlock_abi, _ABI_LIMIT - 1) << _ABI_SHIFT

    @staticmethod
    def decode(word: int) -> IsolationReport:
        """The report that an integer says. Raises WireError for unknown bits and for what cannot be true together."""
        if not 0 <= word < _KNOWN:
            raise WireError("an isolation report has unknown bits")
        flags = {name: bool(word >> bit & 1) for bit, name in enumerate(_FLAGS)}
        report = IsolationReport(landlock_abi=word >> _ABI_SHIFT, **flags)
        if report.landlock_network and report.landlock_abi < NETWORK_ABI:
            raise WireError("an isolation report claims network rules of a landlock that has none")
        if report.landlock_scopes and report.landlock_abi < SCOPES_ABI:
            raise WireError("an isolation report claims scopes of a landlock that has none")
        return report

    def _protections(self) -> tuple[tuple[str, bool], ...]:
        return (
            ("landlock", self.landlock_abi > 0),
            ("landlock network rules", self.landlock_network),
            ("landlock scopes", self.landlock_scopes),
            ("seccomp", self.seccomp),
            ("no new privileges", self.no_new_privs),
            ("no core dumps", self.no_core_dumps),
            ("closed descriptors", self.descriptors_closed),
            ("parent death signal", self.parent_death_signal),
        )

    def _spoken(self, word: str) -> str:
        return f"landlock abi {self.landlock_abi}" if word == "landlock" else word
