"""For the machine in front of the board. Run from a checkout, with nothing installed: only Python's own library and `jetson`'s data."""
