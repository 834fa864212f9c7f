"""Tables, statistics and reports of finished runs."""
