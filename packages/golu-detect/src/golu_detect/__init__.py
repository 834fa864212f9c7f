"""Segmentation, detection and instance segmentation on COCO with any activation, as in the GoLU paper."""
