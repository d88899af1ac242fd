"""A checkpoint is loaded whole or refused by name, and the network is then as it was."""

from __future__ import annotations

import json
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slalom.errors import ModelError
from slalom.zoo.checkpoint import load_checkpoint, read_checkpoint
from slalom.zoo.inception import InceptionV3

State = dict[str, Tensor]


class Network(nn.Sequential):
    ignored_keys = ("auxiliary.",)


def _network() -> Network:
    return Network(OrderedDict(dense=nn.Linear(2, 3), norm=nn.BatchNorm2d(3), head=nn.Linear(3, 1, bias=False)))


def _without(name: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def _with(name: str, tensor: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: tensor}


def write_safetensors(path: Path, state: State) -> None:
    """The format written out by hand, as its specification has it."""
    kinds = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in state.items():
        data = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _write(path: Path, state: State) -> None:
    write_safetensors(path, state) if path.suffix == ".safetensors" else torch.save(state, path)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    "change",
    [
        dict,
        _without("norm.num_batches_tracked"),
        _with("auxiliary.weight", torch.ones(4)),
    ],
    ids=["whole", "of before 2018", "with an ignored head"],
)
def test_weights_arrive_bit_for_bit(tmp_path: Path, name: str, change: Callable[[State], State]) -> None:
    source, target = _network(), _network()
    _write(tmp_path / name, change(source.state_dict()))
    load_checkpoint(target, tmp_path / name)
    for key, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[key])


def test_weights_under_the_key_of_a_training_checkpoint(tmp_path: Path) -> None:
    source, target = _network(), _network()
    torch.save({"epoch": 3, "state_dict": source.state_dict()}, tmp_path / "a.pth")
    load_checkpoint(target, tmp_path / "a.pth")
    assert torch.equal(source.dense.weight, target.dense.weight)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("dense.weight"), "lacks dense.weight of"),
        (lambda state: {"norm.bias": state["norm.bias"]}, r"lacks dense.weight, dense.bias, norm.weight and 3 more of"),
        (_with("extra", torch.ones(1)), "has extra that"),
        (_with("head.weight", torch.ones(2, 3)), r"head.weight has shape \(2, 3\), the network's is \(1, 3\)"),
        (_with("head.weight", torch.tensor([[1.0, torch.nan, 2.0]])), "head.weight is not finite"),
        (_with("head.weight", torch.tensor([[1.0, torch.inf, 2.0]])), "head.weight is not finite"),
    ],
    ids=["missing", "many missing", "unexpected", "shape", "nan", "infinity"],
)
def test_wrong_weights_are_refused_and_change_nothing(
    tmp_path: Path, name: str, change: Callable[[State], State], said: str
) -> None:
    network = _network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    _write(tmp_path / name, change(_network().state_dict()))
    with pytest.raises(ModelError, match=said):
        load_checkpoint(network, tmp_path / name)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b""),
        ("a.pt", b"not a checkpoint"),
        ("a.pt", b"PK\x03\x04 a broken archive"),
        ("a.pt", pickle.dumps(print, protocol=2)),
        ("a.pth", pickle.dumps({"a": 1}, protocol=2)),
        ("a.onnx", b"another format"),
        ("a.safetensors", b""),
        ("a.safetensors", b"\x00" * 8),
        ("a.safetensors", b"\xff" * 16),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{,"),
        ("a.safetensors", (50_000).to_bytes(8, "little") + b"[" * 50_000),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        load_checkpoint(_network(), tmp_path / name)


def test_a_missing_file_and_other_contents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights at"):
        load_checkpoint(_network(), tmp_path / "gone.pt")
    for content in ([1, 2], {}, {"a": 1}, {1: torch.ones(1)}, torch.ones(2)):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(ModelError, match="state dict"):
            load_checkpoint(_network(), tmp_path / "a.pt")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": [], "shape": [2], "data_offsets": [0, 8]},
        "F32",
    ],
)
def test_a_tensor_that_does_not_fit_its_file_is_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"weight": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ModelError, match="weight"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.filterwarnings("ignore")  # of what a damaged header makes torch believe of the file
@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    _write(path, _network().state_dict())
    if kind == "pickle":
        torch.save(_network().state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    chance = random.Random(8)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.randrange(1, 8)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(_network(), path)
        except ModelError:
            refused += 1
    assert refused > 100


def test_other_types_of_safetensors(tmp_path: Path) -> None:
    state = {
        "half": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    write_safetensors(tmp_path / "a.safetensors", state)
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_the_auxiliary_head_of_inception_is_skipped(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = InceptionV3(classes=2).state_dict()
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}
    state["AuxLogits.fc.weight"] = torch.zeros(2, 768)
    torch.save(state, tmp_path / "inception.pth")
    network = InceptionV3(classes=2)
    load_checkpoint(network, tmp_path / "inception.pth")
    assert not network.fc.weight.any()
