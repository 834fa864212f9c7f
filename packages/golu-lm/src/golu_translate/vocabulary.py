"""The numbers of the symbols that are no text, as fairseq's dictionary has them."""

BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
