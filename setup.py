"""Builds the one compiled part, the quantizer; everything else is in pyproject.toml.

(There `ext-modules` is still marked experimental by setuptools; here it is stable.)
"""

from setuptools import Extension, setup

KERNEL = Extension(
    "quant._kernel",
    ["quant/kernel.c"],
    depends=["quant/kernel_tile.h"],
    # Without a C compiler the install goes on: quant.rtn then takes its numpy path, the same bits but slower.
    optional=True,
    py_limited_api=True,
    extra_compile_args=[
        "-O3",
        "-g0",
        "-Wno-psabi",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffinite-math-only",
        "-fno-signed-zeros",
    ],
)

setup(ext_modules=[KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
