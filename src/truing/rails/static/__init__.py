"""`rails check`: what can be known of a configuration without running it."""
