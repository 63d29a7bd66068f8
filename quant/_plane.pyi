from numpy import float32, int32
from numpy.typing import NDArray

def nearest_plane(
    target: NDArray[float32],
    carried: NDArray[float32],
    normal: NDArray[float32],
    diagonal: NDArray[float32],
    scales: NDArray[float32],
    low: NDArray[float32],
    codes: NDArray[float32],
    cost: NDArray[float32],
    which: NDArray[int32],
    span: float,
    /,
) -> None: ...
