"""Builds the two compiled parts, of the quantizers; everything else is in pyproject.toml.

(There `ext-modules` is still marked experimental by setuptools; here it is stable.)
"""

from setuptools import Extension, setup

FLAGS = [
    "-O3",
    "-g0",
    "-Wno-psabi",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
]


def compiled(name: str, source: str, depends: list[str]) -> Extension:
    return Extension(
        name,
        [source],
        depends=depends,
        # Without a C compiler the install goes on: quant.rtn then takes its numpy path, the same bits but slower,
        # and so does quant.plane.
        optional=True,
        py_limited_api=True,
        extra_compile_args=FLAGS,
    )


EXTENSIONS = [
    compiled("quant._kernel", "quant/kernel.c", ["quant/kernel_tile.h"]),
    compiled("quant._plane", "quant/plane.c", []),
]
setup(ext_modules=EXTENSIONS, options={"bdist_wheel": {"py_limited_api": "cp311"}})
