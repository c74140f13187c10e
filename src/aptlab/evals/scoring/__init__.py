"""The numbers behind the evals: what a network says about texts, windows and prompts. Everything here needs torch."""
