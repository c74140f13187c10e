"""How a model knows positions: rotation of queries and keys, a bias on scores, an addition to the embedding."""
