"""Every compiled function was made by `kernel`, with its flags, and can trust the disk cache."""

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import nachos_kernels
from nachos_kernels import _jit

MODULES = [
    importlib.import_module(f"nachos_kernels.{module.name}")
    for module in pkgutil.iter_modules(nachos_kernels.__path__)
]
# NUMBA_DISABLE_JIT=1 leaves plain functions behind, so that there is nothing to inspect.
needs_compiler = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: no kernels")


def compiled_functions():
    """Return every compiled function of the package by its full name, where it is defined."""
    return {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if hasattr(value, "py_func") and value.py_func.__module__ == module.__name__
    }


@needs_compiler
def test_there_are_kernels():
    """Guards the next tests against passing on an empty list."""
    assert {
        "nachos_kernels.inverted_residual.inverted_residual_grad",
        "nachos_kernels.pool.max_pool_forward",
        "nachos_kernels.activation.activate",
    } <= compiled_functions().keys()


@needs_compiler
@pytest.mark.parametrize("name", compiled_functions())
def test_kernel_has_the_flags_of_the_policy(name):
    function = compiled_functions()[name]
    options = function.targetoptions
    assert options["nogil"] is True
    assert options["parallel"] is False
    assert options["nopython"] is True
    assert set(options["fastmath"]) == {"reassoc", "contract", "nsz"} == _jit.FASTMATH
    assert options["error_model"] == "numpy"
    assert function.stats.cache_path is not None, "cache=True is missing"


def test_without_a_folder_for_the_cache_a_kernel_is_compiled_all_the_same(monkeypatch):
    def njit(function, *, cache=False, **_options):
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return function

    monkeypatch.setattr(numba, "njit", njit)
    assert _jit.kernel(abs) is abs


@needs_compiler
def test_a_change_in_another_file_is_noticed_by_the_cache(tmp_path):
    """A copy of the package, one kernel calling another file's, run, changed there, and run again."""
    package = tmp_path / "nachos_kernels"
    package.mkdir()
    source = Path(_jit.__file__).parent
    for name in ("__init__.py", "_jit.py"):
        (package / name).write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")
    head = "from nachos_kernels._jit import kernel\n"
    (package / "outer.py").write_text(
        head + "from nachos_kernels.inner import inner\n@kernel\ndef outer(x):\n    return inner(x) + 1\n"
    )
    program = "from nachos_kernels.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    printed = []
    for change in ("x * 10", "x * 10", "x * 1000"):
        inner = head + f"@kernel\ndef inner(x):\n    return {change}\n"
        if not (package / "inner.py").exists() or (package / "inner.py").read_text() != inner:
            (package / "inner.py").write_text(inner)
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        printed.append(run.stdout.split())
    assert printed == [["11", "0"], ["11", "1"], ["1001", "0"]]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_bare_njit(module):
    """`_jit.py` alone uses Numba's own decorators."""
    if module is not _jit:
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert not re.search(r"@\s*(numba\.)?(n?jit|vectorize|guvectorize|stencil)|import.*\bn?jit\b", source)
