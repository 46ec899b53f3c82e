"""Loops timed against what else runs them: python -m benchmarks"""
