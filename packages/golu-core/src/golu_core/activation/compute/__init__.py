"""The kernels of GoLU for CUDA and the CPU, and the operations of torch that stand in for them."""
