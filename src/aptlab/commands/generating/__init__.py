"""The parts of `aptlab generate`: request (no torch), session."""
