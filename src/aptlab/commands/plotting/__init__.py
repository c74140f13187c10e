"""The two halves of `aptlab plot`: the checked request, and the session that measures and draws."""
