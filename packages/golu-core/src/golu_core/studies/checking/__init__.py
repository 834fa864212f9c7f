"""`golu-core check`: what an author of an activation needs to know, on one card."""
