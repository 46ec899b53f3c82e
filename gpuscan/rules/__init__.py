"""The rewrites: algebra, shapes, and the passes in the order in which they run."""
