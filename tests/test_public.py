"""What `nachos_min` offers to Python: its names, and how its objects look at a prompt and in a notebook."""

import subprocess
import sys

import nachos_min


def test_every_public_name_is_there_for_completion_and_for_import() -> None:
    assert [*dir(nachos_min)] == sorted([*nachos_min.__all__, "__version__"])
    for name in nachos_min.__all__:
        assert getattr(nachos_min, name).__doc__, name
    given: dict[str, object] = {}
    exec("from nachos_min import *", given)
    assert {*nachos_min.__all__} == given.keys() - {"__builtins__"}


def test_what_a_caller_can_catch_is_public() -> None:
    errors = [name for name in nachos_min.__all__ if name.endswith("Error") and name != "WorkerDiedError"]
    assert all(issubclass(getattr(nachos_min, name), nachos_min.InputError) for name in errors)


def test_importing_the_package_loads_no_library() -> None:
    program = "import sys, nachos_min; dir(nachos_min); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "numba", "scipy", "h5py", "rich", "sklearn", "pandas", "logging"} & {*found.split()}
