"""Own code for the checks: takes memory until somebody puts an end to it."""

hoard = []
while True:
    hoard.append(b"x" * 2**24)
