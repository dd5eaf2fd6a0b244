"""The rails that ship: their flows (`*.co`), their actions, and the detectors behind these."""
