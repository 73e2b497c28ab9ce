"""Bytes -> array and facts, one file per format family: pictures (with heads and tiff) and arrays."""
