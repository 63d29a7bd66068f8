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
def pack(bits: int, heads: NDArray[uint8], codes: NDArray[uint8], out: NDArray[uint8], /) -> None: ...
