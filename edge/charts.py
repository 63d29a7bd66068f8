"""Charts as standalone SVG text: readable in light and dark, by keyboard and screen reader, and without colour.

    from edge.charts import Series, line_chart
    svg = line_chart([Series("int4", [0, 512, 2048], [41.0, 39.5, 33.2])],
                     title="Decode speed", x_label="tokens in context", y_label="tokens per second")

No dependency, no script, nothing fetched; the same values give the same bytes. Text is escaped whatever it holds.
"""

from edge.reporting.bars import Bar, stacked_bars
from edge.reporting.heatmaps import heatmap
from edge.reporting.histograms import histogram
from edge.reporting.lines import Series, line_chart
from edge.reporting.scatter import Dot, front, scatter_chart

__all__ = [
    "Bar",
    "Dot",
    "Series",
    "front",
    "heatmap",
    "histogram",
    "line_chart",
    "scatter_chart",
    "stacked_bars",
]
