"""Encoders that give labels or vectors and no text: from a checkpoint to a bundle, and text in, label out.

`EXPORTERS` in `edge.encoder.exporters` says by model_type who writes the graph; all the rest is the same for each.
"""
