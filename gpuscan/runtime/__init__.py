"""Devices: what runs a compiled graph."""
