"""The linter's rules, a module per subject, and what they read: `view.py` (a graph, indexed once) and `targets.py` (what a release takes)."""
