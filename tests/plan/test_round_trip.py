"""A plan that is written and read is the same plan, and its digest says everything that it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.plan.manifest import decode_graph, encode_graph
from slalom.plan.plan import content_digest
from slalom.plan.steps import Graph, Preprocessing
from tests.devices import GRAPH_NAMES, plan_of
from tests.plan.plan_files import GOLDEN_DIGEST, content_of, tiny_parts, tiny_plan


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_file_and_bytes_give_the_plan_back(name: str, tmp_path: Path) -> None:
    plan = plan_of(name)
    plan.save(tmp_path / "x.slalom")
    for read in (Plan.load(tmp_path / "x.slalom"), Plan.from_bytes((tmp_path / "x.slalom").read_bytes())):
        assert read.graph == plan.graph
        assert read.digest == plan.digest
        assert set(read.tensors) == set(plan.tensors)
        for key, tensor in plan.tensors.items():
            assert read.tensors[key].dtype == tensor.dtype
            np.testing.assert_array_equal(read.tensors[key], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["x.slalom"]


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_the_manifest_is_canonical(name: str) -> None:
    text = encode_graph(plan_of(name).graph)
    assert text.isascii()
    assert decode_graph(text) == plan_of(name).graph
    assert encode_graph(decode_graph(text)) == text


def test_writing_twice_gives_the_same_bytes() -> None:
    assert content_of(tiny_plan()) == content_of(tiny_plan())


def test_preprocessing_and_classes_return() -> None:
    graph, tensors = tiny_parts()
    photo = Preprocessing(224, 256, "bicubic", (127.0, 1.5, 0.0), (128.0, 1e-3, 3.0))
    graph = dataclasses.replace(graph, preprocessing=photo, classes=("crane (bird)", "café"))
    read = Plan.from_bytes(content_of(Plan(graph, tensors)))
    assert read.graph == graph


def test_the_digest_of_a_plan_written_by_hand_never_changes() -> None:
    """Changes only with the format: then the version changes as well."""
    assert tiny_plan().digest == GOLDEN_DIGEST


def test_every_tensor_byte_counts() -> None:
    graph, tensors = tiny_parts()
    seen = {content_digest(encode_graph(graph), tensors)}
    for name, tensor in tensors.items():
        for place in range(tensor.nbytes):
            changed = tensor.copy()
            changed.view(np.uint8).reshape(-1)[place] ^= 1
            seen.add(content_digest(encode_graph(graph), {**tensors, name: changed}))
    assert len(seen) == 1 + sum(tensor.nbytes for tensor in tensors.values())


def test_names_shapes_and_types_of_tensors_count() -> None:
    graph, tensors = tiny_parts()
    manifest = encode_graph(graph)
    others: list[dict[str, Any]] = [
        {**tensors, "w": tensors["w"].reshape(4, 1, 1, 1)},
        {**tensors, "m": tensors["b"], "b": tensors["m"]},
        {"w2": tensors["w"], "m": tensors["m"], "b": tensors["b"]},
        {**tensors, "m": tensors["m"].view(np.int8)},
        {"w": tensors["w"], "m": tensors["m"]},
        {**tensors, "": np.zeros(0, np.int8)},
    ]
    digests = {content_digest(manifest, other) for other in [tensors, *others]}
    assert len(digests) == 1 + len(others)


def changed_values(value: Any) -> Iterator[Any]:
    """The value with one leaf changed, once for each leaf; nothing about validity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            for other in changed_values(getattr(value, item.name)):
                yield dataclasses.replace(value, **{item.name: other})
    elif isinstance(value, tuple):
        yield (*value, *value) if value else ("more",)
        for index, entry in enumerate(value):
            for other in changed_values(entry):
                yield (*value[:index], other, *value[index + 1 :])
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield value + "x"
    elif isinstance(value, int | float):
        yield value + 1


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_every_field_of_every_step_counts(name: str) -> None:
    plan = plan_of(name)
    manifests = [encode_graph(plan.graph)]
    for changed in changed_values(plan.graph):
        assert isinstance(changed, Graph)
        manifests.append(encode_graph(changed))
    assert len(set(manifests)) == len(manifests) > 30  # a digest is the SHA-256 of the manifest and the tensors


def test_a_folder_or_an_absent_file_is_a_model_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ModelError, match="cannot read plan"):
            Plan.load(path)
    with pytest.raises(ModelError, match="cannot write"):
        tiny_plan().save(tmp_path / "absent" / "x.slalom")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.slalom"
    tiny_plan().save(path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ModelError, match="no space left"):
        plan_of("dense").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_plans_tensors_cannot_be_changed() -> None:
    plan = plan_of("dense")
    name = min(plan.tensors)
    with pytest.raises(ValueError, match="read-only"):
        plan.tensors[name].reshape(-1)[0] = 0
    with pytest.raises(TypeError):
        plan.tensors[name] = plan.tensors[name]  # type: ignore[index]
