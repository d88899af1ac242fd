"""The zoo's networks have the parameters that torchvision's have, by name, shape and number, and can be exported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from slalom.zoo.efficientnet import SamePadding, efficientnet_lite0
from slalom.zoo.inception import inception_v3
from slalom.zoo.initialise import initialise
from slalom.zoo.mobilenet import mobilenet, mobilenet_sep
from slalom.zoo.resnet import resnet_18, resnet_34, resnet_50, resnet_101, resnet_152
from slalom.zoo.vgg import vgg_16, vgg_19

# As published: torchvision's documentation, the MobileNet and EfficientNet-Lite checkpoints. Inception v3 has
# 27,161,264 with its auxiliary head, which holds 3,326,696.
PARAMETERS = [
    (vgg_16, 138_357_544),
    (vgg_19, 143_667_240),
    (resnet_18, 11_689_512),
    (resnet_34, 21_797_672),
    (resnet_50, 25_557_032),
    (resnet_101, 44_549_160),
    (resnet_152, 60_192_808),
    (inception_v3, 27_161_264 - 3_326_696),
    (mobilenet, 4_231_976),
    (mobilenet_sep, 4_231_976 - 2 * 4_960),
    (efficientnet_lite0, 4_652_008),
]

# Names and shapes as they stand in torchvision's checkpoints.
KEYS = [
    (vgg_16, "features.0.weight", (64, 3, 3, 3)),
    (vgg_16, "features.28.bias", (512,)),
    (vgg_16, "classifier.0.weight", (4096, 25088)),
    (vgg_16, "classifier.3.weight", (4096, 4096)),
    (vgg_16, "classifier.6.bias", (1000,)),
    (vgg_19, "features.34.weight", (512, 512, 3, 3)),
    (resnet_18, "conv1.weight", (64, 3, 7, 7)),
    (resnet_18, "layer1.0.conv1.weight", (64, 64, 3, 3)),
    (resnet_18, "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
    (resnet_18, "layer4.1.bn2.running_var", (512,)),
    (resnet_50, "layer1.0.downsample.0.weight", (256, 64, 1, 1)),
    (resnet_50, "layer1.0.downsample.1.running_mean", (256,)),
    (resnet_50, "layer4.2.conv3.weight", (2048, 512, 1, 1)),
    (resnet_50, "fc.weight", (1000, 2048)),
    (resnet_152, "layer3.35.bn3.num_batches_tracked", ()),
    (inception_v3, "Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
    (inception_v3, "Conv2d_4a_3x3.bn.bias", (192,)),
    (inception_v3, "Mixed_5b.branch1x1.conv.weight", (64, 192, 1, 1)),
    (inception_v3, "Mixed_5b.branch5x5_2.bn.running_mean", (64,)),
    (inception_v3, "Mixed_5b.branch_pool.conv.weight", (32, 192, 1, 1)),
    (inception_v3, "Mixed_6a.branch3x3dbl_3.conv.weight", (96, 96, 3, 3)),
    (inception_v3, "Mixed_6b.branch7x7_2.conv.weight", (128, 128, 1, 7)),
    (inception_v3, "Mixed_6c.branch7x7dbl_5.conv.weight", (192, 160, 1, 7)),
    (inception_v3, "Mixed_7a.branch7x7x3_4.conv.weight", (192, 192, 3, 3)),
    (inception_v3, "Mixed_7b.branch3x3_2b.conv.weight", (384, 384, 3, 1)),
    (inception_v3, "Mixed_7c.branch3x3dbl_3a.bn.running_var", (384,)),
    (inception_v3, "fc.weight", (1000, 2048)),
    (efficientnet_lite0, "_blocks.15._project_conv.weight", (320, 1152, 1, 1)),
]

# Number of tensors in torchvision's checkpoints (Inception without its auxiliary head).
TENSORS = [(vgg_16, 32), (resnet_18, 122), (resnet_50, 320), (inception_v3, 94 * 6 + 2), (efficientnet_lite0, 296)]

SMALL = [
    (lambda: vgg_16(classes=10, image_size=32, hidden_width=16), 32),
    (lambda: resnet_18(classes=10, image_size=32), 32),
    (lambda: resnet_50(classes=10, image_size=32), 32),
    (lambda: mobilenet(classes=10, image_size=32), 32),
    (lambda: mobilenet_sep(classes=10, image_size=32), 32),
    (lambda: inception_v3(classes=10, image_size=75), 75),
    (lambda: efficientnet_lite0(classes=10, image_size=33), 33),
]


def _on_meta(factory: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):  # shapes alone: nothing is allocated or drawn
        return factory()


def _noise(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("factory", "count"), PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(factory: Callable[[], nn.Module], count: int) -> None:
    assert sum(parameter.numel() for parameter in _on_meta(factory).parameters()) == count


@pytest.mark.parametrize("factory", sorted({factory for factory, _, _ in KEYS}, key=lambda factory: factory.__name__))
def test_tensors_have_their_published_names_and_shapes(factory: Callable[[], nn.Module]) -> None:
    state = _on_meta(factory).state_dict()
    expected = {key: shape for owner, key, shape in KEYS if owner is factory}
    assert {key: tuple(state[key].shape) for key in expected} == expected


@pytest.mark.parametrize(("factory", "count"), TENSORS)
def test_there_is_no_other_tensor(factory: Callable[[], nn.Module], count: int) -> None:
    assert len(_on_meta(factory).state_dict()) == count


def test_a_bottleneck_strides_on_its_3x3_convolution() -> None:
    block = _on_meta(resnet_50).get_submodule("layer2.0")
    assert block.get_submodule("conv1").stride == (1, 1)
    assert block.get_submodule("conv2").stride == (2, 2)


@pytest.mark.parametrize(("factory", "size"), SMALL)
def test_the_exported_network_is_the_network(factory: Callable[[], nn.Module], size: int) -> None:
    network = factory()
    assert not network.training
    assert network.input_shape == (3, size, size)
    images = _noise(1, size)
    exported = torch.export.export(network, (images,)).module()
    with torch.inference_mode():
        logits = network(images)
        assert logits.shape == (1, 10)
        assert torch.isfinite(logits).all()
        assert torch.equal(exported(images), logits)


def test_weights_are_a_function_of_the_seed() -> None:
    first, again, other = mobilenet(10, 32, seed=4), mobilenet(10, 32, seed=4), mobilenet(10, 32, seed=5)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_seeding_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    initialise(nn.BatchNorm2d(5), seed=2)
    assert torch.equal(torch.rand(3), expected)


def test_batch_norms_are_not_the_identity() -> None:
    for layer in resnet_18(classes=10).modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                assert tensor.unique().numel() > 32
            assert layer.running_var.min() >= 0.8


@pytest.mark.parametrize(("factory", "size"), SMALL)
def test_random_weights_keep_every_layer_in_range_and_tell_images_apart(
    factory: Callable[[], nn.Module], size: int
) -> None:
    network = factory()
    deviations: list[float] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _inputs, output: deviations.append(output.std().item()))
    with torch.inference_mode():
        logits = network(_noise(4, size))
    assert min(deviations) > 0.03  # where the image has become 1x1, a 3x3 filter sees one pixel in nine
    assert max(deviations) < 10
    between = logits.std(dim=0).mean()
    assert between > 0.1 * logits.std()


def test_same_padding_puts_the_odd_zero_last() -> None:
    padding = SamePadding(3)
    assert padding(torch.ones(1, 1, 4, 5)).tolist() == [
        [[[0, 0, 0, 0, 0, 0, 0], *[[0, 1, 1, 1, 1, 1, 0]] * 4, [0, 0, 0, 0, 0, 0, 0]][1:]]
    ]
