"""Translation by the Transformer of Vaswani et al. (2017) with any activation, as fairseq trains it."""
