"""The indices of the special symbols, as in fairseq's dictionary."""

BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
