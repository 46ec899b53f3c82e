"""From graphs to kernels: the kernel IR, the lowering of ops to it, and the text of a kernel."""
