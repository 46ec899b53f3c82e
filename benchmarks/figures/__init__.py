"""Figures of other libraries that tests compare with: python -m benchmarks.figures.NAME"""
