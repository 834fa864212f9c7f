"""Studies of many runs: `golu-core sweep` trains them, `golu-core aggregate` makes tables. Extra: `studies`."""
