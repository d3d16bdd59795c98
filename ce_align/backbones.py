"""Architectures of our own, which training builds and weights are loaded into."""

import inspect

from torch import Tensor, nn

from ce_align.vision import resnet

__all__ = ["TinyResNet", "own_backbone", "source_of"]


class TinyResNet(nn.Module):
    """Residual network of one basic block a stage, for small images and few cores.

    The layers are named as in torchvision's networks. The stem is a 3×3 convolution of
    stride 2 without pooling. Branches do not begin at zero, as those of the larger
    networks do: in a few hundred steps they would hardly grow, and what would be
    trained are the shortcuts, which see one pixel in four.

    Parameters
    ----------
    width : channels of the first stage; each further stage has twice as many
    n_classes : outputs of `fc`
    """

    def __init__(self, width: int = 24, n_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )

    def forward(self, images: Tensor) -> Tensor:
        """Output of `fc` for (n, 3, height, width) images."""
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        outputs: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return outputs


def resnet18_cifar(n_classes: int = 1000) -> nn.Module:
    """ResNet-18 for images of 32 px: no pooling, stem of stride 1 (He et al., 2016)."""
    network: nn.Module = resnet.resnet18(zero_init_residual=True, num_classes=n_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def own_backbone(name: str, n_classes: int = 1000) -> nn.Module:
    """One of `ce_align.names.OWN_BACKBONES`, of random weights."""
    build = TinyResNet if name == "tiny" else resnet18_cifar
    return build(n_classes=n_classes)


def source_of(name: str) -> str:
    """Source of what `own_backbone` builds; it needs ``Tensor``, ``nn``, ``resnet``."""
    parts = (TinyResNet, _stage) if name == "tiny" else (resnet18_cifar,)
    return "\n\n\n".join(inspect.getsource(part).rstrip() for part in parts)


def _stage(n_inputs: int, n_outputs: int, stride: int) -> nn.Sequential:
    """One basic block, named as torchvision names it."""
    shortcut = None
    if stride != 1 or n_inputs != n_outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(n_inputs, n_outputs, 1, stride, bias=False),
            nn.BatchNorm2d(n_outputs),
        )
    return nn.Sequential(resnet.BasicBlock(n_inputs, n_outputs, stride, shortcut))
