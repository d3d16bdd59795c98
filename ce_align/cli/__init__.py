"""The command line: parse, call a stage, print."""

from ce_align.cli.app import main

__all__ = ["main"]
