"""How long to fuzz: `--fuzz-seconds`, for each decoder."""

from __future__ import annotations

import pytest

SECONDS = 5.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=SECONDS, help="seconds for each fuzzer")


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """Seconds for one fuzzer. The option is there where this folder was named on the command line."""
    return float(request.config.getoption("fuzz_seconds", SECONDS))
