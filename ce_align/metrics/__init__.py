"""Measures of representations and of their alignment: arrays in, arrays out."""
