"""A network out of a checkpoint: as it was trained, under another position rule, extended, or with other positions."""
