"""The parts of `edge.benchmark`: the engine in a process of its own, memory bandwidth, bytes of a token, spreads."""
