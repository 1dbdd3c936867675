"""Keeping freed memory is a request to the C library that may be refused."""

import pytest

from nachos_min.autograd.memory import keep_freed_memory


def test_a_c_library_without_the_setting_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # a C library without mallopt
    assert keep_freed_memory() is False
