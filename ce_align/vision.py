"""torchvision, imported without the compiler of torch, which takes as long as torch.

As torchvision is imported, one of its operators asks ``torch._dynamo`` for a function
that it calls only where it is compiled. Here it gets one that asks then; whatever else
is asked for is the compiler's own.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["InterpolationMode", "functional", "models", "resnet"]

PACKAGE, UTILS = "torch._dynamo", "torch._dynamo.utils"


class _Deferred(ModuleType):
    """Stands for a module of the compiler until something of it is needed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who looks at all modules needs nothing of it
            raise AttributeError(name)
        _forget()
        return getattr(import_module(self.__name__), name)


def _forget() -> None:
    for name in (PACKAGE, UTILS):
        if isinstance(sys.modules.get(name), _Deferred):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> Any:
    return import_module(UTILS).is_compile_supported(device_type)


if "torchvision" not in sys.modules and PACKAGE not in sys.modules:
    import torch

    sys.modules |= {name: _Deferred(name) for name in (PACKAGE, UTILS)}
    vars(sys.modules[PACKAGE])["__path__"] = [f"{torch.__path__[0]}/_dynamo"]
    vars(sys.modules[UTILS])["is_compile_supported"] = _is_compile_supported
    try:
        import torchvision  # noqa: F401
    finally:
        _forget()

from torchvision import models  # noqa: E402
from torchvision.models import resnet  # noqa: E402
from torchvision.transforms import InterpolationMode, functional  # noqa: E402
