from numpy import float16, generic, uint8
from numpy.typing import NDArray

def quantize(
    format: int,
    dtype: int,
    rows: NDArray[generic],
    codes: NDArray[uint8],
    scales: NDArray[float16],
    zeros: NDArray[uint8],
    lanes: int,
    /,
) -> int: ...
