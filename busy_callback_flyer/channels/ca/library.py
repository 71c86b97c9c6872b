class Unavailable(RuntimeError):
    pass


def library():
    raise Unavailable("stub")
