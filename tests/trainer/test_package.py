"""The package itself is cheap, and its modules say what they offer."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import ce_align.trainer

MODULES = [found.name for found in pkgutil.iter_modules(ce_align.trainer.__path__)]


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ce_align.trainer; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_what_it_offers(name):
    module = importlib.import_module(f"ce_align.trainer.{name}")
    assert module.__all__
    for offered in module.__all__:
        assert getattr(module, offered).__doc__ or not callable(
            getattr(module, offered)
        )
