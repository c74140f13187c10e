"""The parts of `aptlab search`: request (no torch), problem, worker, session, progress, figure, option."""
