"""Language models in the nanoGPT style with any activation, as in the GoLU paper."""
