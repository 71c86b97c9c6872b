"""Ways of waiting for Done, each a program of its own: see `__main__` of each for what it is given and gives."""
