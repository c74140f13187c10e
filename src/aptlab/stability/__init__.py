"""Many small trainings under stress: which methods break, when, and what they lose."""
