"""How rows are made of a token stream, in which order, and which segments are measured."""
