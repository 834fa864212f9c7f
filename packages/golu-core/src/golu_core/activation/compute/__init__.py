"""The kernels of GoLU for CUDA and the CPU, and the torch operations that replace them elsewhere."""
