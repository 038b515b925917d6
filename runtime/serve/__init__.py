"""The page to watch a run on: one HTML file with its style and script, and a WebSocket that feeds it."""
