"""Own data with no option but its file: do the defaults find admissible networks, at every size of image?

    python bench/bench_own_data.py [--only 28x28] [--json]

Each case is a generated .npz of images, and a search of six candidates of two epochs in a process of its own. A
class is a smooth random picture; its images are that picture shifted, at another contrast, and noisy. `must` is
admissible networks in 90 % of the cases, and a reason in one line in the others.
"""

import json as json_format
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from fire import Fire
from measuring import machine, tell
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIDES, CHANNELS, CLASSES = (8, 12, 16, 28, 32, 48, 64, 96), (1, 3), (2, 10, 100)
SAMPLES = {2: 400, 10: 600, 100: 1_500}
OPTIONS = {"evaluations": 6, "epochs": 2}


def pictures(side: int, channels: int, classes: int, samples: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return generated images, uint8 [samples, side, side, channels], and their classes, int64 [samples]."""
    rng = np.random.default_rng([side, channels, classes])
    drawn, blur = rng.standard_normal((classes, side, side, channels)), (0, side / 8, side / 8, 0)
    smooth = gaussian_filter(drawn, blur, mode="wrap")
    smooth /= smooth.std(axis=(1, 2, 3), keepdims=True)
    labels = rng.permutation(np.arange(samples) % classes)
    shifts = rng.integers(-(side // 16), side // 16 + 1, (samples, 2))
    shown = np.stack([np.roll(smooth[label], shift, (0, 1)) for label, shift in zip(labels, shifts, strict=True)])
    shown *= rng.uniform(0.5, 1.5, (samples, 1, 1, 1))
    noise = side / 8  # in deviations of the picture: what can be known of it does not depend on the pixels
    shown += noise * rng.standard_normal(shown.shape)
    return np.clip(128 + 60 * shown / (1 + noise), 0, 255).astype(np.uint8), labels


def searched(file: Path, folder: Path) -> dict[str, Any]:
    """Return what the defaults are for the data in `file`, and what a search of it finds."""
    from nachos_min.nas.configuration import resolved
    from nachos_min.nas.fitting import prepared
    from nachos_min.nas.plan import plan_of

    asked = resolved({"data": str(file)})
    plan = plan_of(prepared(asked), asked)
    typed = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "nachos_min", "search", "--data", str(file), *typed, "--json"]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    result = json_format.loads(done.stdout) if done.stdout else {}
    front = result.get("front", [])
    return {
        "space": plan.space,
        "sides": " ".join(map(str, plan.sides)) or "own",
        "max MACs": int(plan.limits["max_macs"]),
        "trained": result.get("evaluated", 0),
        "admissible": result.get("admissible", 0),
        "accuracy": max((row["accuracy"] for row in front), default=0.0),
        "largest class": plan.largest_class,
        "seconds": seconds,
        "status": done.returncode,
        "reason": done.stderr.strip().splitlines()[-1] if done.returncode else "",
    }


def main(only: str = "", json: bool = False) -> None:
    """Print a row for each case; with --json one JSON object.

    Args:
        only: part of a case's name, such as 28x28, x3/ or /100; others are left out.
        json: print JSON.
    """
    rows: list[dict[str, Any]] = []
    for side, channels, classes in product(SIDES, CHANNELS, CLASSES):
        name = f"{side}x{side}x{channels}/{classes}"
        if only not in name:
            continue
        with TemporaryDirectory() as folder:
            file = Path(folder) / "mine.npz"
            images, labels = pictures(side, channels, classes, SAMPLES[classes])
            np.savez(file, images=images, labels=labels)
            rows.append({"images/classes": name} | searched(file, Path(folder)))
        print(*rows[-1].values(), file=sys.stderr, flush=True)
    tell(machine(1), rows, json)
    found = sum(row["admissible"] > 0 for row in rows)
    print(f"{found} of {len(rows)} cases have admissible networks", file=sys.stderr)


if __name__ == "__main__":
    Fire(main)
