"""The parts of `edge.evaluate`: windows of a text, engines in processes of their own, references, statistics."""
