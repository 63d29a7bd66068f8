"""Does a model fit a device: what each engine takes of its memory, and the phones that are known."""
