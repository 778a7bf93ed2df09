"""Small trained parts for a model whose weights are frozen."""
