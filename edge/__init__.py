"""On-device deployment of small language models: what a person touches."""
