"""Image classifiers on ImageNet-1k and CIFAR-10 with any activation, as in the GoLU paper."""
