"""Flyers as classic ophyd devices."""
