"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NEW_MODE = 0o644  # a temporary file is its owner's alone; what is written here is no secret


@contextmanager
def written_whole(path: Path, mode: int = NEW_MODE) -> Iterator[IO[bytes]]:
    """A file beside `path` to write to, which takes its place at the end; an error leaves what was there.

    Raises OSError.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
