"""The ops: each one's type rule, NumPy meaning, derivative and batching rule sit together."""
