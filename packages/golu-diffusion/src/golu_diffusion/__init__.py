"""Denoising diffusion models on CelebA with any activation, as in the GoLU paper."""
