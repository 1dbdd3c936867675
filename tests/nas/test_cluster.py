"""A search on a Dask cluster: the same bytes as on this machine, also if a worker dies; others are refused."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.nas import cluster as dask
from nachos_min.nas.cluster import ClusterError, about_this_process

distributed = pytest.importorskip("distributed")

SMALL: dict[str, Any] = {"space": "micro", "max_macs": 30_000, "min_accuracy": 0.5, "finalists": 0, "epochs": 1}


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "evaluations").iterdir()}


@pytest.mark.filterwarnings("ignore")  # those of Dask's own libraries
def test_a_cluster_gives_the_same_bytes_and_a_worker_may_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        with monkeypatch.context() as other:
            other.setattr(dask, "about_this_process", lambda: about_this_process() | {"numpy": "0.1"})
            with pytest.raises(
                ClusterError, match=rf"as this process is, got 2, .*: numpy {np.__version__} instead of 0.1"
            ):
                dask.DaskPool(cluster.scheduler_address)
        processes = [nanny.pid for nanny in cluster.workers.values()]

        def kill(progress: Any) -> None:
            if progress.evaluated == 2 and len(processes) == 2:
                os.kill(processes.pop(), signal.SIGKILL)

        options = SMALL | {"evaluations": 6}
        there = nachos_min.search(
            **options, out=tmp_path / "there", dask=cluster.scheduler_address, on_progress=kill
        )
        assert len(processes) == 1, "one was killed"
        here = nachos_min.search(**options, out=tmp_path / "here", workers=0)
        assert there.evaluated == here.evaluated == 6
        assert files(tmp_path / "there") == files(tmp_path / "here")
        assert cluster.scheduler.allowed_failures == 3
        assert not [name for name in cluster.scheduler.worker_plugins if "nachos" in name]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "http://here:80"])
def test_an_address_without_a_scheduler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("nachos_min.nas.cluster._TIMEOUT", 0.1)
    with pytest.raises(ClusterError, match=rf"dask must be the address of a scheduler, got '{address}'"):
        nachos_min.search(**SMALL, out=tmp_path / "run", dask=address)
    assert not (tmp_path / "run").exists()
