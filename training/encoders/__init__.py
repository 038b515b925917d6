"""The two encoders, written here so that they can be taken apart for streaming, export and quantization."""
