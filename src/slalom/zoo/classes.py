"""The names of what a network recognises.

`imagenet_classes.txt` holds the 1000 classes of ILSVRC 2012 in their order: the first lemma of each WordNet 3.0 synset
(Princeton University, WordNet licence), with a word in brackets where two synsets share it (crane, maillot).
"""

from __future__ import annotations

from importlib.resources import files

from slalom.errors import ModelError

_FILES = {"imagenet": ("imagenet_classes.txt", 1000)}


def class_names(dataset: str) -> tuple[str, ...]:
    """The class names of `dataset` ("imagenet"), class 0 first; no two are equal. ModelError for any other dataset."""
    if dataset not in _FILES:
        raise ModelError(f"no class names for {dataset!r}", hint=f"known: {', '.join(_FILES)}")
    file_name, count = _FILES[dataset]
    names = tuple((files(__package__) / file_name).read_text(encoding="utf-8").splitlines())
    if len(names) != count:
        raise ModelError(f"{file_name} has {len(names)} lines instead of {count}", hint="reinstall slalom")
    return names
