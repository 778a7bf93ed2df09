"""What is wrong with a backward, from the numbers it gives."""


def explain(examination):
    pass
