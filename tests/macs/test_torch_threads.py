"""What a module computes in another thread is counted, or the count is refused: never 0."""

import _thread
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from macs.torch_cases import With, nn, torch

from nachos_min.macs import CountError
from nachos_min.macs.count import count
from nachos_min.macs.readers.torch_reader import read_torch


def _started(_, run, x):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(x)))
    thread.start()
    thread.join()
    return results[0]


def _begun(_, run, x):
    """A thread that the module `threading` does not know."""
    results = queue.Queue()
    _thread.start_new_thread(lambda: results.put(run(x)), ())
    return results.get(timeout=20)


def _pooled(pool, run, x):
    return pool.submit(run, x).result()


def _mapped(pool, run, x):
    return next(iter(pool.map(run, [x])))


def _served(pool, run, x):
    """A thread of long ago that takes work from a queue."""
    work, done = pool
    work.put((run, x))
    return done.get(timeout=20)


@pytest.fixture
def server():
    work, done = queue.Queue(), queue.Queue()

    def serve():
        while (task := work.get()) is not None:
            done.put(task[0](task[1]))

    thread = threading.Thread(target=serve)
    thread.start()
    yield work, done
    work.put(None)
    thread.join()


@pytest.mark.parametrize("call", [_started, _begun, _pooled, _mapped])
def test_threads_listen(call):
    layer, weight = nn.Linear(4, 5), torch.zeros(4, 5)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(abs, 1).result()  # its thread is there already
        for run in (layer, lambda x: x @ weight, lambda x: layer(x) + x @ weight):
            module = With(lambda _, x, f=run: call(pool, f, x) + 1, layer=layer)
            graph = read_torch(module, (2, 4))
            assert count(graph).macs in (40, 80)
            assert all(node.written.used for node in graph)
        assert count(graph).macs == 80
        assert pool.submit(lambda: torch.zeros(2, 4) @ weight).result().shape == (2, 5)


def test_a_thread_of_long_ago_is_heard_while_it_runs_a_module(server):
    module = With(lambda m, x: _served(server, m.layer, x) + 1, layer=nn.Linear(4, 5))
    graph = read_torch(module, (2, 4))
    assert count(graph).macs == 40
    assert graph[0].name == "layer"


def test_what_another_thread_computes_unheard_is_refused(server):
    weight = torch.zeros(4, 5)
    for further in (torch.ones(5).add, lambda y: [y]):  # read by the network, or only returned
        module = With(lambda _, x, f=further: f(_served(server, lambda y: y @ weight, x)))
        with pytest.raises(
            CountError, match=r"what made the array \(2, 5\) is not heard, such as NumPy or another"
        ):
            read_torch(module, (2, 4))
    graph = read_torch(With(lambda _, x: x @ weight + torch.ones(5).sqrt() + torch.zeros(3)[0]), (2, 4))
    assert count(graph).macs == 40


def test_many_threads_at_once():
    layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(8))

    def forward(m, x):
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda layer: layer(x), m.layers))

    graph = read_torch(With(forward, layers=layers), (2, 4))
    assert count(graph).macs == 8 * 2 * 2 * 16
    assert count(graph).params == sum(x.numel() for x in layers.parameters())
