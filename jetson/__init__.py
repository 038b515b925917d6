"""What makes a Jetson a sensing service: its devices and releases as data, its power and clocks, first boot, updates.

`jetson/host/` is for the machine in front of the board: it flashes, fills a root file system, provisions; it needs Python's own library alone.
"""
