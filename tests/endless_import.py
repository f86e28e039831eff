"""A module whose import does not end."""

import time

while True:
    time.monotonic()
