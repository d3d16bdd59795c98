"""torchvision without the compiler of torch, until that is needed."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import sys, inspect
from ce_align.vision import models
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
import torch
from torchvision.ops import roi_align
features, box = torch.arange(64.0).view(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]])
print(float(roi_align(features, box, 1)))
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
before = "torch._dynamo" in sys.modules
from torch._dynamo.utils import is_compile_supported
assert torch._dynamo is sys.modules["torch._dynamo"] and inspect.getfile(torch._dynamo)
print(before, all(asked(on) == is_compile_supported(on) for on in ("cpu", "cuda")))
print(float(torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(()))))
"""


def test_the_compiler_is_imported_when_it_is_needed_and_whole():
    answer = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    ).stdout.split()
    # The centre of the box is at row and column 2, of values 8 · row + column.
    assert answer == ["18.0", "False", "True", "1.0"]
