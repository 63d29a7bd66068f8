"""Where the crops of several images of different sizes lie, and in which order their features stand, as ONNX nodes.

Everything is arithmetic on indices, so that one gather from a flat table merges any number of images.
"""

from __future__ import annotations

from onnx import TensorProto

from converters.encoders import Vision
from converters.onnx.encoder_parts import EncoderGraph


class ImageGrid:
    """Of the input `image_sizes`. `crops`: those in use, as int64 places in all crops of all images."""

    def __init__(self, graph: EncoderGraph, vision: Vision) -> None:
        self._graph = graph
        self._half = vision.side // 2
        grid = graph.op("Div", "image_sizes", graph.scalar(vision.crop_size))
        # int64 [images]: rows and columns of crops, the first in use.
        self._rows, self._columns = (graph.op("Gather", grid, graph.scalar(i), axis=1) for i in range(2))
        count = graph.op("Add", graph.op("Mul", self._rows, self._columns), graph.scalar(1))
        ends = graph.op("CumSum", count, graph.scalar(0))
        self._first = graph.op("Sub", ends, count)
        # int64 [crops in use]: whose they are, their number in the image, thumbnail 0.
        used = graph.range(graph.op("ReduceSum", count, graph.ints(0), keepdims=1))
        self._image = graph.place(used, ends)
        self._number = graph.op("Sub", used, graph.op("Gather", self._first, self._image))
        before = graph.op("Mul", self._image, graph.size("pixel_values", 1))
        self.crops = graph.op("Add", before, self._number)

    def index(self, features: str, seen: str) -> str:
        """Which row each feature of the images is in the table of `features` [crops in use, side * side / 4, channels]
        flat, `row_end`, `separator`: the grid's rows and their ends, the separator, the thumbnail's rows and ends.

        `seen`: which patches are no padding, bool [crops in use, side, side]; "" for all.
        """
        graph, half = self._graph, self._half
        op, scalar = graph.op, graph.scalar
        height, width = self._useful(seen) if seen else self._all()
        ended = op("Add", width, scalar(1))
        grid = op("Mul", height, ended)
        count = op("Add", grid, scalar(1 + half * (half + 1)))
        ends = op("CumSum", count, scalar(0))
        place = graph.range(op("ReduceSum", count, graph.ints(0), keepdims=1))
        image = graph.place(place, ends)

        def own(value: str) -> str:
            return op("Gather", value, image)

        inside, grid = op("Sub", place, own(op("Sub", ends, count))), own(grid)
        crops = op("Squeeze", graph.size(features, 0))
        row_end = op("Mul", crops, scalar(half * half))
        in_grid = self._in_grid(inside, own(ended), own(self._columns), own(self._first))
        at_end = op("Equal", op("Mod", inside, own(ended)), own(width))
        in_grid = op("Where", at_end, row_end, in_grid)
        after = op("Sub", inside, op("Add", grid, scalar(1)))
        y, x = op("Div", after, scalar(half + 1)), op("Mod", after, scalar(half + 1))
        thumbnail = op("Mul", own(self._first), scalar(half * half))
        small = op("Add", thumbnail, op("Add", op("Mul", y, scalar(half)), x))
        small = op("Where", op("Equal", x, scalar(half)), row_end, small)
        behind = op("Where", op("Less", after, scalar(0)), op("Add", row_end, scalar(1)), small)
        return op("Where", op("Less", inside, grid), in_grid, behind)

    def _in_grid(self, inside: str, ended: str, columns: str, first: str) -> str:
        """The row of the table of a place in the crops' common grid, whose rows are `ended` long."""
        graph, half = self._graph, self._graph.scalar(self._half)
        op = graph.op
        y, x = op("Div", inside, ended), op("Mod", inside, ended)
        tile = op("Add", op("Mul", op("Div", y, half), columns), op("Div", x, half))
        crop = op("Add", op("Add", first, graph.scalar(1)), tile)
        cell = op("Add", op("Mul", op("Mod", y, half), half), op("Mod", x, half))
        return op("Add", op("Mul", crop, graph.scalar(self._half**2)), cell)

    def _useful(self, seen: str) -> tuple[str, str]:
        """Rows and columns of features without padding, int64 [images]: as the original counts them, every second patch
        seen in the first column and in the first row of the grid."""
        graph, half = self._graph, self._half
        start, stop, axes, step = (graph.ints(*v) for v in ((0, 0), (2 * half, 2 * half), (1, 2), (2, 2)))
        cells = graph.op("Cast", graph.op("Slice", seen, start, stop, axes, step), to=TensorProto.INT64)
        tile = graph.op("Sub", self._number, graph.scalar(1))
        columns = graph.op("Gather", self._columns, self._image)
        numbers = graph.op("Unsqueeze", graph.range(graph.size("image_sizes", 0)), graph.ints(1))
        is_tile = graph.op("GreaterOrEqual", tile, graph.scalar(0))
        own = graph.op("And", graph.op("Equal", numbers, self._image), is_tile)
        in_first_column = graph.op("Equal", graph.op("Mod", tile, columns), graph.scalar(0))
        totals = []
        for axis, chosen in ((2, in_first_column), (1, graph.op("Less", tile, columns))):
            line = graph.op("Gather", cells, graph.scalar(0), axis=axis)
            here = graph.op("ReduceSum", line, graph.ints(1), keepdims=0)
            counted = graph.op("Where", graph.op("And", own, chosen), here, graph.scalar(0))
            totals.append(graph.op("ReduceSum", counted, graph.ints(1), keepdims=0))
        return totals[0], totals[1]

    def _all(self) -> tuple[str, str]:
        half = self._graph.scalar(self._half)
        return self._graph.op("Mul", self._rows, half), self._graph.op("Mul", self._columns, half)
