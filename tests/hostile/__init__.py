"""Damaged and hostile input of every kind: generators, and one way to judge them.

A module of this folder that has ``cases(rng)`` is a family; `python -m hostile`
tries all of them, and `test_hostile.py` a fixed sample.
"""
