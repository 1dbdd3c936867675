"""Every compiled function was made by `kernel`, with its flags, and can trust the disk cache."""

import importlib
import pkgutil
import re
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
        "nachos_kernels.depthwise.depthwise_grad_weight",
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
@pytest.mark.parametrize("name", compiled_functions())
def test_kernel_calls_compiled_functions_of_its_own_file_only(name):
    """The disk cache does not notice a change in another file: the old machine code would be used."""
    function = compiled_functions()[name].py_func
    for used in function.__code__.co_names:
        callee = function.__globals__.get(used)
        if hasattr(callee, "py_func"):
            assert callee.py_func.__module__ == function.__module__, f"{name} calls {used}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_bare_njit(module):
    """`_jit.py` alone uses Numba's own decorators."""
    if module is not _jit:
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert not re.search(r"@\s*(numba\.)?(n?jit|vectorize|guvectorize|stencil)|import.*\bn?jit\b", source)
