"""The parts of `edge report`, and the drawing that `edge.charts` offers to the other commands."""
