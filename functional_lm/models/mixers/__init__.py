"""What mixes the positions of a text, as part of a block."""
