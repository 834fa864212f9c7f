"""`golu-core check`: an activation's properties on one card."""
