"""Programs to run: python -m gpuscan.examples.NAME."""
