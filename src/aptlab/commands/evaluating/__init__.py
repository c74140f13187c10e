"""The parts of `aptlab eval`: request (no torch), session, figure."""
