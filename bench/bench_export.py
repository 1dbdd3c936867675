"""Exported networks: do they answer as the engine does, how large are they, and how fast at half the MACs?

    python bench/bench_export.py [--evaluations 8] [--epochs 6] [--images 200] [--rounds 5] [--json]

Three networks each, trained for this by a short search: of `tiny` on the digits of 8x8, of `small32` on `digits32`,
and of `flex32` with squeeze-and-excitation in every block and a gene for the resolution. From each run come the
network with the fewest parameters, the one with the most, and the most accurate of the others.

`confidence` is the largest difference to the engine's at any exit, over the test images that a run keeps.
`differ` are images with another label or exit (C with sanitizers, C, ONNX, gated ONNX), without the `near` ones:
those within 1e-5 of a threshold. `flash` and `RAM` are of the object at -Os; `arm` the same for a Cortex-M4, if
arm-none-eabi-gcc is installed.

`int8` is flash and RAM of the network in integers, beside it the accuracy of both on the test split. Its time is at
its own thresholds, not at half the MACs.

Times are microseconds per image with thresholds at which the average MACs are half of the last exit's: C at -O3 and
the gated ONNX file (onnxruntime, one thread) one image at a time, the engine one at a time and 256 together.
"""

import subprocess
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from bench_inference import thresholds_for
from fire import Fire
from measuring import best_of_rounds, machine, on_threads, tell

ARM = ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
TIMER = r"""
#include "network.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) { struct timespec t; timespec_get(&t, TIME_UTC); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }

int main(int count, char **arguments)
{
    enum { VALUES = NETWORK_HEIGHT * NETWORK_WIDTH * NETWORK_CHANNELS };
    int images = atoi(arguments[1]), rounds = atoi(arguments[2]);
    network_value *all = malloc(sizeof(network_value) * VALUES * images);
    double thresholds[NETWORK_EXITS], best = 1e30;
    network_answer answer;
    if (count != 3 + NETWORK_EXITS || fread(all, sizeof(network_value) * VALUES, images, stdin) == 0) return 2;
    for (int e = 0; e < NETWORK_EXITS; e++) thresholds[e] = atof(arguments[3 + e]);
    for (int r = 0; r < rounds; r++) {
        double begin = now(), taken;
        for (int i = 0; i < images; i++) predict_full(all + (size_t)i * VALUES, thresholds, &answer);
        taken = (now() - begin) / images;
        if (taken < best) best = taken;
    }
    printf("%.3f\n", best);
    return 0;
}
"""


def networks(space: str, evaluations: int, epochs: int, folder: Path) -> tuple[Any, list[Any]]:
    """Return the data of a short search, and three networks of it."""
    import numpy as np

    import nachos_min
    from nachos_min.data import load
    from nachos_min.nas.runs import stored_problem

    data: Any = "digits"
    if space != "tiny":
        train = load("digits32").train
        rows = np.arange(1_500)
        data = (
            train.images.stored[rows if train.images.rows is None else train.images.rows[rows]],
            train.labels[rows],
        )
    where = space
    if space == "flex32 SE":
        text = (
            resources.files("nachos_min.nas")
            .joinpath("spaces", "flex32.toml")
            .read_text("utf-8")
            .replace("squeeze_excite = false", "squeeze_excite = true")
        )
        where = str(folder / "flex32-se.toml")
        Path(where).write_text(text, "utf-8")
    run = folder / space.replace(" ", "-")
    options = {"evaluations": evaluations, "epochs": epochs, "max_macs": 10**9, "min_accuracy": 0.01, "workers": 0}
    result = nachos_min.search(data=data, space=where, out=str(run), finalists=0, **options)
    front = {row.genome: row for row in reversed(result.front)}  # the most accurate setting of each network
    found = sorted(front.values(), key=lambda row: row.evaluation.costs.params)
    middle = max(found[1:-1], key=lambda row: row.accuracy) if len(found) > 2 else found[0]
    return stored_problem(str(run), data=data).data, [found[0], middle, found[-1]]


def measured(space: str, data: Any, row: Any, size: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one network."""
    import numpy as np

    from nachos_min.eenn.inference import predict
    from nachos_min.export import c_check
    from nachos_min.export.c_source import write_c
    from nachos_min.export.comparison import Engine, onnx_answers
    from nachos_min.export.files import int8_written
    from nachos_min.export.onnx_file import write_onnx
    from nachos_min.nas.runs import examples

    trained, images = row.trained, examples(row.run).images
    engine, exits = Engine(trained, images), len(trained.thresholds)
    write_c(trained, folder)
    plain, gated = folder / "plain.onnx", folder / "gated.onnx"
    write_onnx(trained, plain)
    write_onnx(trained, gated, gated=True)
    compared = {
        "C sanitized": engine.compare(*c_check.c_answers(folder, images, exits, c_check.SANITIZED)),
        "C": engine.compare(*c_check.c_answers(folder, images, exits, ("-O3",))),
        "ONNX": engine.compare(*onnx_answers(plain, images, gated=False)),
        "gated": engine.compare(*onnx_answers(gated, images, gated=True)),
    }
    sizes = {"object": c_check.c_size(folder)}
    try:
        sizes["arm"] = c_check.c_size(folder, ARM)
    except c_check.CompilerError:
        sizes["arm"] = None
    thresholds, share = thresholds_for(engine.tables.confidence, trained.costs.exit_costs, 0.5)
    integers = int8_written(row, data, images, folder / "int8")
    assert integers.comparison is not None
    assert integers.comparison.equal
    figures = integers.figures or {}
    sizes["int8"] = (figures["flash"], figures["ram"])
    own = tuple(figures["test"]["thresholds"])
    half, images = replace(trained, thresholds=thresholds), images[:size]
    write_onnx(half, gated, gated=True)
    scaled = np.asarray(half.scaled(images))
    first = c_time(folder, images, thresholds, rounds)
    times = best_of_rounds(
        {
            "ONNX": onnx_task(gated, images),
            "engine 1": lambda: [
                predict(half.network, scaled[i : i + 1], thresholds, half.confidence) for i in range(size)
            ],
            "engine 256": lambda: predict(half.network, scaled, thresholds, half.confidence),
        },
        rounds,
    )
    times = {name: taken / len(images) * 1e6 for name, taken in times.items()}
    int8 = [c_time(folder / "int8", images, own, rounds) for _ in range(2)]
    times = {
        "C": min(first, c_time(folder, images, thresholds, rounds)),
        "int8": min(int8),
        **times,
    }  # both ends of a busy minute
    return {
        "space": space,
        "network": row.solution,
        "params": row.evaluation.costs.params,
        "macs": trained.costs.worst_macs,
        "exits": exits,
        "images": len(engine.images),
        "confidence": {name: each.confidence for name, each in compared.items()},
        "differ": {name: each.differ for name, each in compared.items()},
        "near": compared["C"].near,
        "sizes": sizes,
        "accuracy": {"float": row.test.accuracy, "int8": figures["test"]["accuracy"]},
        "share": share,
        "microseconds": times,
    }


def c_time(folder: Path, images: Any, thresholds: tuple[float, ...], rounds: int) -> float:
    """Return microseconds per image of the C at -O3."""
    (folder / "timer.c").write_text(TIMER, "utf-8")
    sources = [str(folder / name) for name in ("timer.c", "network.c")]
    subprocess.run(["cc", "-std=c11", "-O3", "-o", str(folder / "timer"), *sources, "-lm"], check=True)
    command = [str(folder / "timer"), str(len(images)), str(20 * rounds), *map(repr, thresholds)]
    return float(subprocess.run(command, input=images.tobytes(), stdout=subprocess.PIPE, check=True).stdout)


def onnx_task(path: Path, images: Any) -> Any:
    """Return what runs a gated ONNX file on the images, one after the other, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: [session.run(None, {name: images[i : i + 1]}) for i in range(len(images))]


def main(evaluations: int = 8, epochs: int = 6, images: int = 200, rounds: int = 5, json: bool = False) -> None:
    """Print the table."""
    on_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for space in ("tiny", "small32", "flex32 SE"):
            data, found = networks(space, evaluations, epochs, Path(place))
            rows += [measured(space, data, row, images, rounds, Path(place, "out")) for row in found]
    table = [
        {
            "space": row["space"],
            "params": row["params"],
            "MACs": row["macs"],
            "exits": row["exits"],
            "images": row["images"],
            "confidence C, ONNX, gated": ", ".join(f"{row['confidence'][n]:.0e}" for n in ("C", "ONNX", "gated")),
            "differ": "/".join(str(n) for n in row["differ"].values()),
            "near": row["near"],
            "flash, RAM": "{:,}, {:,}".format(*row["sizes"]["object"]),
            "arm": "{:,}, {:,}".format(*row["sizes"]["arm"]) if row["sizes"]["arm"] else "",
            "int8": "{:,}, {:,}".format(*row["sizes"]["int8"]),
            "test float, int8": ", ".join(f"{100 * each:.1f}" for each in row["accuracy"].values()),
            "share": round(row["share"], 2),
            **{f"µs {name}": round(taken, 1) for name, taken in row["microseconds"].items()},
        }
        for row in rows
    ]
    tell(machine(1), rows if json else table, json)


if __name__ == "__main__":
    Fire(main)
