"""LoSparse: linear layers become two thin matrices and a few rows while the model trains."""
