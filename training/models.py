"""The networks, by name."""

import torch
import torchvision  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor, nn
from torch.nn import functional

from stoker.training.batches import Form
from stoker.training.config import OWN_MODELS

_INPUT_EDGES = {  # pixels; a model that is not named takes images as they are, but none smaller than 32
    **dict.fromkeys(OWN_MODELS, 32),
    **dict.fromkeys(("vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "maxvit_t"), 224),
    "inception_v3": 299,
    "alexnet": 64,
}
_LEAST_EDGE = 32
_WITHOUT_AUXILIARY = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


class TutorialCnn(nn.Module):
    """The network of PyTorch's "Training a classifier" tutorial: 62,006 parameters for ten classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> scores (N, classes)."""
        images = self.pool(functional.relu(self.conv1(images)))
        images = self.pool(functional.relu(self.conv2(images)))
        flat = torch.flatten(images, 1)
        flat = functional.relu(self.fc1(flat))
        flat = functional.relu(self.fc2(flat))
        scores: Tensor = self.fc3(flat)
        return scores


class Fast(nn.Module):
    """A small modern net: whitened patches, three groups of convolutions with BatchNorm and GELU, one linear layer.

    For batches of 128 and more, SGD with Nesterov momentum, a learning rate near 0.5 and a one-cycle schedule.

    Source:
        The speed-run family of Page, tysam-code and Keller Jordan (cifar10-airbench), restated and made smaller.
    """

    PATCH, STRIDE, COMPONENTS = 4, 2, 16
    WIDTHS = (64, 96, 128)
    SCALE = 1 / 9  # of the scores; keeps the first steps at a high learning rate stable

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 2 * self.COMPONENTS, self.PATCH, stride=self.STRIDE)
        self.whiten.weight.requires_grad_(False)
        groups: list[nn.Module] = [nn.GELU()]
        width_in = 2 * self.COMPONENTS
        for index, width in enumerate(self.WIDTHS):
            groups += _convolution(width_in, width, pool=index < 2) + _convolution(width, width, pool=False)
            width_in = width
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(width_in, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> scores (N, classes)."""
        features = self.groups(self.whiten(images)).amax((2, 3))
        scores: Tensor = self.head(features) * self.SCALE
        return scores

    @torch.no_grad()
    def adapt(self, images: Tensor) -> None:
        """Set the frozen first layer to the main directions of the patches of some images, each once with either sign.

        Args:
            images: (N, 3, 32, 32) as the net will see them; a few thousand are enough.
        """
        size = self.PATCH
        patches = images.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * size**2)
        values, vectors = torch.linalg.eigh(patches.double().T @ patches.double() / len(patches))
        scaled = (vectors / (values + 5e-4).sqrt()).T.reshape(-1, 3, size, size)[-self.COMPONENTS :]
        self.whiten.weight.copy_(torch.cat([scaled, -scaled]))
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # this convolution has one


def _convolution(width_in: int, width: int, *, pool: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[: min(width_in, width)].detach())
    norm = nn.BatchNorm2d(width, momentum=0.4)
    return [convolution, *([nn.MaxPool2d(2)] if pool else []), norm, nn.GELU()]


def create(name: str, classes: int) -> nn.Module:
    """Return a network with fresh weights, drawn from torch's random state.

    Raises ValueError for an unknown name.
    """
    if name == "tutorial-cnn":
        return TutorialCnn(classes)
    if name == "fast":
        return Fast(classes)
    options = {"aux_logits": False, **_WITHOUT_AUXILIARY[name]} if name in _WITHOUT_AUXILIARY else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return model


def input_form(name: str, height: int, width: int, device: torch.device) -> Form:
    """Return how a model wants images of a data set that are ``height`` × ``width``."""
    by_pixel = name == "fast" or device.type == "cuda"  # faster there
    layout = torch.channels_last if by_pixel else torch.contiguous_format
    edge = _INPUT_EDGES.get(name)
    if edge:
        return Form(edge, edge, layout)
    return Form(max(height, _LEAST_EDGE), max(width, _LEAST_EDGE), layout)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the statistics of a batch enter the result."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
