"""Networks in integers against those in float: accuracy, bytes, and time of the exported C.

    python -m nachos_min search --data digits --space tiny --evaluations 4 --epochs 15 --finalists 0 --out runs/tiny
    python bench/bench_int8.py runs/tiny [RUN ...] [--networks 3] [--rounds 3] [--json]

Of each run the first networks of the front, each in its most accurate setting. `loss` is float - int8 in points on
the test split; `mean loss` and `most` are those of up to 16 settings of the network. `equal` is whether C under
sanitizers gives the labels, exits and confidences of the integers in NumPy, on all the test images of the run.
Flash and RAM are of the object at -Os, for this machine and for a Cortex-M4. Times are microseconds for an image
that passes every exit, at -O3 on this machine.
"""

import tempfile
from pathlib import Path
from typing import Any

from bench_export import ARM, c_time
from fire import Fire
from measuring import machine, on_threads, tell


def measured(rows: list[Any], data: Any, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one network; `rows` are its settings, the most accurate first."""
    import numpy as np

    from nachos_min.export import c_check
    from nachos_min.export.c_layers import int8_code
    from nachos_min.export.c_source import write_c, write_code
    from nachos_min.export.comparison import Engine
    from nachos_min.export.quantised import quantised
    from nachos_min.nas.runs import examples

    row = rows[0]
    made = quantised(row.trained, data.train.images)
    losses = []
    for each in rows[:: -(-len(rows) // 16)]:
        chosen = made.leaving(data.validation, each.point.validation.exit_counts)
        losses.append(100 * (each.test.accuracy - chosen.figures(data.test).accuracy))
    made = made.leaving(data.validation, row.point.validation.exit_counts)
    found, images, exits = made.figures(data.test), examples(row.run).images, len(row.thresholds)
    stay = (*[2.0] * (exits - 1), 0.0)
    float_folder, int8_folder = folder / "float", folder / "int8"
    write_c(row.trained, float_folder)
    write_code(made.trained, int8_code(made), int8_folder)
    answers = c_check.c_answers(int8_folder, images, exits, c_check.SANITIZED)
    compared = Engine(made.trained, images, made).compare(*answers)
    both = [c_check.c_size(each) for each in (float_folder, int8_folder)]
    arm = [c_check.c_size(each, ARM) for each in (float_folder, int8_folder)]
    times = [c_time(each, images[:200], stay, rounds) for each in (float_folder, int8_folder)]
    return {
        "run": Path(row.run).name,
        "#": row.solution,
        "params": row.params,
        "accuracy": f"{row.test.accuracy:.2%} {found.accuracy:.2%}",
        "loss": round(losses[0], 2),
        "mean loss": round(float(np.mean(losses)), 2),
        "most": round(max(losses), 2),
        "settings": len(losses),
        "MACs": f"{row.test.average_macs:,.0f} {found.average_macs:,.0f}",
        "equal": compared.equal and compared.confidence == 0,
        "flash": " ".join(f"{size[0]:,}" for size in both if size),
        "RAM": " ".join(f"{size[1]:,}" for size in both if size),
        "arm flash": " ".join(f"{size[0]:,}" for size in arm if size),
        "arm RAM": " ".join(f"{size[1]:,}" for size in arm if size),
        "µs": " ".join(f"{taken:.0f}" for taken in times),
    }


def main(*runs: str, networks: int = 3, rounds: int = 3, json: bool = False) -> None:
    """Print the table; each column with two figures has float first."""
    on_threads(1)
    from nachos_min.nas.runs import load_run, stored_problem

    table = []
    with tempfile.TemporaryDirectory() as place:
        for run in runs:
            settings: dict[Any, list[Any]] = {}
            for row in load_run(run).front:
                settings.setdefault(row.genome, []).append(row)
            data = stored_problem(run, with_data=True).data
            table += [measured(rows, data, rounds, Path(place)) for rows in [*settings.values()][:networks]]
    tell(machine(1), table, json)


if __name__ == "__main__":
    Fire(main)
