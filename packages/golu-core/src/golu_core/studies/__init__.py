"""Studies of many runs: `golu-core sweep` trains them, `golu-core aggregate` writes tables. Extra: `studies`."""
