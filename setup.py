"""The compiled kernels: every `_name.pyx` in the package, beside the plain module it doubles.

    a checkout             .pyx ──Cython──▶ .c ──C compiler──▶ extension    pip fetches Cython
    a source distribution          it has the .c ──C compiler──▶ extension
    no C compiler          a warning, and the plain Python modules do the work

Everything else about the project stands in pyproject.toml. MAGNETAR_KERNELS=required makes what
cannot be compiled an error, so that no wheel is built without its kernels by accident;
MAGNETAR_KERNELS=no leaves them out. MAGNETAR_KERNELS_FLAGS are further flags for the C compiler
and the linker.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup

CYTHON = "Cython >= 3.1"
HERE = Path(__file__).parent
WANTED = os.environ.get("MAGNETAR_KERNELS", "")
OPTIONAL = WANTED != "required"
FLAGS = os.environ.get("MAGNETAR_KERNELS_FLAGS", "").split()
UNPACKED = (HERE / "PKG-INFO").exists()
"""This is a source distribution: the C files in it belong to the .pyx files beside them."""


def kernels() -> list[Extension]:
    """Return all extensions, made of C files; translated first where this is a checkout."""
    extensions = [_extension(path) for path in sorted(Path("src").rglob("_*.pyx"))]
    if UNPACKED:
        for each in extensions:
            each.sources = [source.removesuffix(".pyx") + ".c" for source in each.sources]
        return extensions
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - not there in every build
    except ImportError:  # asked what the build needs, or told to build with what there is
        if WANTED == "required":
            raise
        return []
    made: list[Extension] = cythonize(extensions, language_level=3, annotate=False)
    for each in made:
        each.optional = OPTIONAL  # which Cython does not hand on
    return made


def _extension(path: Path) -> Extension:
    return Extension(
        ".".join(path.with_suffix("").relative_to("src").parts),
        [path.as_posix()],
        include_dirs=["src/magnetar/broker"],
        depends=[each.as_posix() for each in sorted(Path("src").rglob("_*.h"))],
        extra_compile_args=["-O3", "-g0", "-fno-strict-aliasing", *FLAGS],
        extra_link_args=FLAGS,
        optional=OPTIONAL,
    )


if __name__ == "__main__":
    os.chdir(HERE)
    # Asked what this build needs besides setuptools (PEP 517), it says so in this old way.
    asked = "egg_info" in sys.argv and not find_spec("Cython")
    setup(
        ext_modules=[] if WANTED == "no" else kernels(),
        setup_requires=[CYTHON] if asked and not UNPACKED and WANTED != "no" else [],
    )
