"""Stages: a frozen configuration in, rows out."""
