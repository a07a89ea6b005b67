"""What pyproject.toml can't decide: the native loops are built only where cargo is installed."""

import shutil

from setuptools import setup
from setuptools_rust import RustExtension

setup(
    rust_extensions=[
        RustExtension(
            "livestep.pipeline.native._native",
            path="livestep/pipeline/native/Cargo.toml",
            # Without a network for the crates, or with an old cargo, the install is all Python.
            optional=True,
            debug=False,
            py_limited_api=True,
        )
    ]
    if shutil.which("cargo")
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
