"""Recordings from the files of a lab, one module a format."""
