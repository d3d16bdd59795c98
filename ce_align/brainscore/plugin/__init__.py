"""Plugins for Brain-Score: written, read, checked and run."""
