"""How kernels are compiled, cached and run: flags, the disk cache, parts of large maps and threads."""

import errno
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching, codegen

import nachos_kernels
import oracles
from nachos_kernels import _jit, activation, batch_norm, conv2d, depthwise

MODULES = [
    importlib.import_module(f"nachos_kernels.{module.name}")
    for module in pkgutil.iter_modules(nachos_kernels.__path__)
]
COMPILED = {
    f"{module.__name__}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if hasattr(value, "py_func") and value.py_func.__module__ == module.__name__
}
# NUMBA_DISABLE_JIT=1 leaves plain functions behind, so that there is nothing to inspect.
needs_compiler = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: no kernels")


@needs_compiler
def test_kernels_have_the_flags_of_the_policy():
    assert "nachos_kernels.inverted_residual.inverted_residual_grad" in COMPILED
    for name, function in COMPILED.items():
        options = function.targetoptions
        flags = [options[flag] for flag in ("nogil", "nopython", "parallel", "error_model")]
        assert flags == [True, True, False, "numpy"], name
        assert set(options["fastmath"]) == {"reassoc", "contract", "nsz"} == _jit.FASTMATH, name
        assert function.stats.cache_path is not None, f"{name}: cache=True is missing"


@pytest.fixture
def kernel_file(tmp_path, monkeypatch):
    """Return what makes the same kernel anew, with its cache in `tmp_path`."""
    source = tmp_path / "twice.py"
    source.write_text("def twice(x):\n    return x + x\n")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    def fresh():
        space = {}
        exec(compile(source.read_text(), str(source), "exec"), space)
        return _jit.kernel(space["twice"])

    return fresh


def hits(function):
    return sum(function.stats.cache_hits.values())


@needs_compiler
def test_without_a_folder_for_the_cache_a_kernel_is_compiled_all_the_same(kernel_file, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))  # no folder can be made in it
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [caching.UserProvidedCacheLocator])
    function = kernel_file()
    assert function.stats.cache_path is None
    assert function(3) == 6


@needs_compiler
@pytest.mark.parametrize("refused", ["open", "ensure_cache_path"])
def test_a_full_disk_behind_the_cache_is_no_error(kernel_file, refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    function = kernel_file()
    if refused == "open":
        monkeypatch.setattr(caching, "open", full, raising=False)
    else:
        monkeypatch.setattr(type(function._cache._impl.locator), refused, full)
    assert function(3) == 6


@needs_compiler
def test_machine_code_that_a_signal_kept_from_the_cache_is_run(kernel_file, monkeypatch):
    monkeypatch.setattr(codegen.CPUCodeLibrary, "_get_compiled_object", lost)
    function = kernel_file()
    assert (function(3), function._cache._cache_file._load_index()) == (6, {})


def lost(library):
    raise RuntimeError(f"no compiled object yet for {library}")


@needs_compiler
def test_a_cache_that_is_damaged_in_any_place_is_not_run(kernel_file, tmp_path):
    function = kernel_file()
    assert (function(3), function(1.5), hits(function)) == (6, 3.0, 0)
    (stored,) = (file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    again = kernel_file()
    assert (again(1.5), again(3), hits(again)) == (3.0, 6, 2), "one file holds all forms"
    whole = stored.read_bytes()
    for place in (0, 31, 32, len(whole) // 2, len(whole) - 1):
        stored.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert again._cache._cache_file._load_index() == {}
    for damaged in (b"", whole[:100]):
        stored.write_bytes(damaged)
        assert again._cache._cache_file._load_index() == {}
    last = kernel_file()
    assert (last(3), hits(last)) == (6, 0), "it is compiled again"
    assert len(last._cache._cache_file._load_index()) == 1
    stored.unlink()
    os.mkfifo(stored)
    assert kernel_file()._cache._cache_file._load_index() == {}


@needs_compiler
def test_a_change_in_another_file_is_noticed_by_the_cache(tmp_path):
    """A copy of the package, one kernel calling another file's, run, changed there, and run again."""
    package = tmp_path / "nachos_kernels"
    package.mkdir()
    for name in ("__init__.py", "_jit.py"):
        (package / name).write_text((Path(_jit.__file__).parent / name).read_text(encoding="utf-8"))
    head = "from nachos_kernels._jit import kernel\n"
    (package / "outer.py").write_text(
        head + "from nachos_kernels.inner import inner\n@kernel\ndef outer(x):\n    return inner(x) + 1\n"
    )
    program = "from nachos_kernels.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    inner, printed = package / "inner.py", []
    for change in ("x * 10", "", "x * 1000"):
        if change:
            inner.write_text(head + f"@kernel\ndef inner(x):\n    return {change}\n")
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        printed.append(run.stdout.split())
    assert printed == [["11", "0"], ["11", "1"], ["1001", "0"]]


@pytest.fixture
def threads():
    """Return `set_threads`; one thread again afterwards."""
    yield nachos_kernels.set_threads
    nachos_kernels.set_threads(1)


def results(name, *geometry):
    """Return what an operator that works in parts computes of 5 images, forward and back."""
    rng = np.random.default_rng(0)
    x, g, (gamma, beta) = *rng.standard_normal((2, 5, 4, 4, 4)), rng.standard_normal((2, 4))
    if name == "bias":
        batch_norm.bias_forward(x, beta, True)
        return [x, *batch_norm.bias_grad(g, x, True)]
    if name == "batch_norm":
        y, *moments = batch_norm.batch_norm_forward(x, gamma, beta, 1e-5, activation.HSWISH)
        return [y, *moments, *batch_norm.batch_norm_grad(g, x, gamma, beta, *moments, 1e-5, activation.HSWISH)]
    shape, stride, *groups = geometry
    module = conv2d if name == "conv2d" else depthwise
    passes = ("forward", "grad_input", "grad_weight")
    forward, grad_input, grad_weight = (getattr(module, f"{name}_{each}") for each in passes)
    settings = (stride, stride), (shape[0] // 2,) * 4, (1, 1), *groups
    w = rng.standard_normal(shape)
    y = forward(x, w, *settings)
    g = np.ascontiguousarray(g[:, : y.shape[1], : y.shape[2]])
    return [y, grad_input(g, w, x.shape, *settings), grad_weight(g, x, shape, *settings)]


IN_PARTS = [
    *(("conv2d", (1, 1, 4, 4), 1, 1), ("conv2d", (3, 3, 4, 4), 2, 1), ("conv2d", (5, 5, 2, 4), 1, 2)),
    *(("depthwise", (3, 3, 4), 1), ("depthwise", (3, 3, 4), 2), ("bias",), ("batch_norm",)),
]


@pytest.mark.parametrize("case", IN_PARTS, ids=str)
def test_parts_compute_the_same_and_any_number_of_threads_the_same_bits(case, threads, monkeypatch):
    in_one = results(*case)
    monkeypatch.setattr(_jit, "PART", 16)
    in_parts = results(*case)
    threads(3)
    oracles.assert_close(in_parts, in_one)
    oracles.assert_close(results(*case), in_parts, 0, 0)


@pytest.mark.parametrize(("length", "numbers"), [(1, 10**9), (7, 10), (7, 10**7), (1000, 3 * _jit.PART), (0, 0)])
def test_parts_cover_the_axis(length, numbers):
    found = _jit.parts_of(length, numbers)
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(length))
    assert length == 0 or all(part.stop > part.start for part in found)
    assert len(found) <= max(1, numbers // _jit.PART)


def test_threads_are_counted_and_raise_what_a_part_raises(threads):
    with pytest.raises(ValueError, match=r"^threads must be >= 1, got 0$"):
        threads(0)
    threads(2)
    with pytest.raises(ZeroDivisionError):
        _jit.each(lambda part: 1 // part.start, [slice(0, 1), slice(1, 2)])
