"""The parts of `aptlab train`: plan, session, report."""
