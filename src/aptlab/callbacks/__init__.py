"""Everything with a clock: numbers, progress, checkpoints, stopping, guarding."""
