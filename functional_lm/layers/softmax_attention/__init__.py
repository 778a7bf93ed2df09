"""Attention by the softmax of scores, and the rotary positions it uses."""
