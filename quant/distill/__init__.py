"""Distillation: a checkpoint teaches a smaller one. The only door to torch is the modules of this folder."""
