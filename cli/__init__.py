"""The `sage-edge` command: one module per verb, each a thin function over a library call."""
