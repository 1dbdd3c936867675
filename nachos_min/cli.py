"""The command line: a typed line in, an exit status out. Only results go to standard output.

A command is a function: its parameters are its options, its docstring is its help. `line.py` says which text each
option has. Fire makes a job of them, each text checked by its option's kind, and the job runs.
"""

import inspect
import json as json_format
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from fire import Fire
from fire.decorators import SetParseFns

from nachos_min import __version__
from nachos_min.errors import InputError, shorten
from nachos_min.line import PROGRAM, advise, read_line
from nachos_min.nas.configuration import OPTIONS, First, Options
from nachos_min.nas.views import SETTINGS
from nachos_min.options import (
    CHANCE,
    COUNT,
    DATA,
    PASSES,
    PROCESSES,
    REQUIRED,
    SHARE,
    SIDES,
    SWITCH,
    Option,
    choice,
    flag,
    options_of,
    taking,
    text,
)
from nachos_min.terminal import silence, tell

if TYPE_CHECKING:
    from nachos_min.nas.result import SearchResult

PURPOSE = (
    "Neural architecture search for early-exit networks under limits on accuracy and multiply-accumulates "
    "(MACs): the NACHOS method, from scratch on NumPy and Numba."
)
DONE, BAD_INPUT, NOT_ADMISSIBLE, DIFFERENT, INTERRUPTED = 0, 2, 3, 4, 130
USUAL_STATUS = "Exit status is 0 when done, 2 for bad usage or input."
WIDTH, INDENT = 80, 6


# Commands. What they need is imported when they run: the help must not wait for Numba.


def search(
    *,
    json: Annotated[bool, First(SWITCH)] = False,
    quiet: Annotated[bool, First(SWITCH)] = False,
    **options: Unpack[Options],
) -> int:
    """Trained networks with early exits for a data set, the most accurate at each cost within your limits.

    Without options it searches networks for the digits that come along. The same command continues an interrupted
    search. COUNT is a whole number such as 60000, 60k or 2.7M (thousand, million; G is thousand million).

    Exit status is 0 when done, 2 for bad usage or input, 3 when no network keeps the limits, 130 when interrupted.

    Args:
        json: Print one JSON object instead of a table.
        quiet: Show no plan and no progress.
        options: as declared in `Options`.
    """
    from nachos_min.nas import nachos

    return _printed(_watched(partial(nachos.search, **options), quiet=quiet), json=json)


def _watched(training: "Callable[..., SearchResult]", *, quiet: bool) -> "SearchResult":
    """Return the result of a search or its like, which shows its plan and its progress unless `quiet`."""
    from nachos_min.nas.workers import WorkerDiedError
    from nachos_min.report.search_report import SearchProgress, show_plan

    with SearchProgress(quiet=quiet) as progress:
        try:
            return training(on_progress=progress, on_plan=None if quiet else show_plan)
        except KeyboardInterrupt:
            done = f"interrupted after {progress.evaluated} evaluations"
            raise KeyboardInterrupt(f"{done}; the same command continues") from None
        except WorkerDiedError as died:
            raise KeyboardInterrupt(str(died)) from None


def show(
    run: Annotated[str, Option(text("folder"))],
    *,
    max_macs: Annotated[int | None, Option(COUNT, absent="as searched")] = None,
    min_accuracy: Annotated[float | None, Option(SHARE, absent="as searched")] = None,
    guarantee: Annotated[float | None, Option(CHANCE)] = None,
    pick: Annotated[str | None, Option(choice(*SETTINGS), absent="all three")] = None,
    all: Annotated[bool, Option(SWITCH)] = False,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """The result of a stored run again, at once; with tighter limits, what the run holds within them.

    RUN is the folder of a search, finished or not. Nothing is trained, and the data set is not needed.

    A network has many settings, its choices of thresholds. Up to three are shown - the most accurate, the cheapest,
    and the knee, where more MACs begin to bring little - of those that no row of the front dominates. A row's k
    stays the same under every option, and RUN#k (runs/digits#0) is what other commands take.

    Exit status is 0 when done, 2 for bad usage or input, 3 when no network keeps the limits.

    Args:
        run: What to show.
        max_macs: Limit on the average number of MACs per inference, at most that of the search.
        min_accuracy: Limit from below on the accuracy, at least that of the search.
        guarantee: Show only rows that keep both limits on new images with this probability, all of them together.
        pick: Show one setting of each network.
        all: Show every row of the front, also those that another dominates.
        json: Print one JSON object instead of a table, with every row unless one is picked.
    """
    from nachos_min.nas.runs import load_run

    if all and pick is not None:
        raise InputError(f"--pick must be absent with --all, which shows every row, got {pick}")
    return _printed(load_run(run, max_macs, min_accuracy, guarantee), json=json, pick=pick, every=all)


def _printed(result: "SearchResult", *, json: bool, pick: str | None = None, every: bool = False) -> int:
    """Return the exit status of a search, its result printed."""
    from nachos_min.report.search_report import closest_sentence, show_result

    if json:
        found = result.as_dict()
        if pick is not None:
            picked = {rows[pick] for rows in found["settings"]}
            found["front"] = [row for row in found["front"] if row["solution"] in picked]
        _print_json(found)
    else:
        show_result(result, pick=pick, every=every)
    if result.front:
        return DONE
    if json:
        tell(closest_sentence(result), to=sys.stderr)
    return NOT_ADMISSIBLE


def _print_json(found: dict[str, Any]) -> None:
    """Print one JSON object, in printable ASCII; of unprintable letters `json` leaves DEL as it is."""
    print(json_format.dumps(found, allow_nan=False).replace("\x7f", "\\u007f"))


def _shown(plain: Callable[[], Any], show: Callable[[], None], *, json: bool) -> int:
    """Print an outcome as one JSON object or for people; return DONE."""
    if json:
        _print_json(plain())
    else:
        show()
    return DONE


def report(
    run: Annotated[str, Option(text("folder"))],
    *,
    to: Annotated[str | None, Option(text("file"), absent="report.html in the run's folder")] = None,
) -> int:
    """A report on a stored run as one HTML file, to be opened in any browser, also offline.

    It shows the front, a card for each network, example images and mistakes by exit, the progress of the search,
    how the run was made, and how its networks are used. Nothing is trained, and the data set is not needed.

    Args:
        run: What to report on.
        to: What to write, in place of what is there.
    """
    from nachos_min.report.run_report import write_report

    tell(write_report(run, to))
    return DONE


def plot(
    run: Annotated[str, Option(text("folder"))],
    *,
    to: Annotated[str | None, Option(text("file"), absent="front.svg in the run's folder")] = None,
) -> int:
    """The front of a stored run as a figure: accuracy against average MACs, as shown and on the test split.

    It needs the extra plot (Matplotlib).

    Args:
        run: What to plot.
        to: What to write, a name that ends in .svg, .png or .pdf, in place of what is there.
    """
    from nachos_min.report.front_figure import write_figure

    tell(write_figure(run, to))
    return DONE


def compare(
    run: Annotated[str, Option(text("folder"))],
    other: Annotated[str, Option(text("folder"))],
    *,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """Two runs on the same data beside each other, within budgets of average MACs.

    RUN and OTHER are the folders of searches. Within each budget the most accurate network on validation is taken,
    and both answer the same test images: the interval is of the difference, image by image.

    Args:
        run: The first, A.
        other: The second, B.
        json: Print one JSON object instead of a table.
    """
    from nachos_min.report.compare_report import report_comparison, show_comparison

    found = report_comparison(run, other)
    return _shown(lambda: found, partial(show_comparison, found), json=json)


def macs(
    target: Annotated[str, Option(text("target"))],
    *,
    input: Annotated[tuple[int, ...] | None, Option(SIDES, absent="as the target says")] = None,
    classes: Annotated[int | None, Option(COUNT, absent="as the target says")] = None,
    convention: Annotated[str, Option(text("name"))] = "exact",
    explain: Annotated[str | None, Option(text("name"))] = None,
    layers: Annotated[bool, Option(SWITCH)] = False,
    verify: Annotated[bool, Option(SWITCH)] = False,
    execute: Annotated[bool, Option(SWITCH)] = False,
    unpadded: Annotated[bool, Option(SWITCH)] = False,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """The exact number of multiply-accumulates (MACs) of a network, and why other tools count differently.

    TARGET is an architecture or a configuration of CNAS (.json), RUN#k (runs/digits#0), an .onnx file,
    or torch:package.module:function, found from the current folder: a function without arguments that
    returns a PyTorch module, (module, inputs) or (module, inputs, keyword arguments).

    Conventions are exact, exact-valid, thop, fvcore, ptflops, ptflops-aten, torchprofile,
    torchprofile-0.0.2, calflops, calflops-flops, torchinfo, torch, onnx-tool, nachos-official.

    Exit status is 0 when done, 2 for bad usage or input, 4 when a tool reports otherwise than predicted and no
    cause is known (--verify), or when something else is executed than was counted (--execute).

    Args:
        target: What to count.
        input: Shape of the input such as 1,3,224,224, or C,H,W of one image. A module is given an array of that
            shape, or if it has no axis of samples, with a batch of one in front; the output says which. An ONNX
            file takes all axes that it declares.
        classes: Number of classes, for a target that leaves it open.
        convention: Whose rules to count by.
        explain: A second convention, whose difference from the first is listed term by term.
        layers: List every layer with its shapes, in a tree of modules with their sums.
        verify: Run the real tools that are installed on the same PyTorch module, and compare.
        execute: Run one sample through this project's engine, and compare what it multiplies with the count.
        unpadded: For a configuration of CNAS with compact lists, count the network its sampler really builds.
        json: Print one JSON object instead of tables.
    """
    from nachos_min.macs.conventions import find_convention
    from nachos_min.report.macs_report import report_macs, show_macs
    from nachos_min.targets import read_target

    rules, against = find_convention(convention), None if explain is None else find_convention(explain)
    counted = read_target(target, input, classes, unpadded=unpadded)
    report = report_macs(counted, rules, against, verify=verify, execute=execute)
    _shown(partial(report.as_dict, layers=layers), partial(show_macs, report, layers=layers), json=json)
    return DIFFERENT if report.different else DONE


def data(
    path: Annotated[str, Option(text("name or path"))],
    *,
    layout: Annotated[str | None, OPTIONS["layout"]] = None,
    resolution: Annotated[int | None, OPTIONS["resolution"]] = None,
    max_bytes: Annotated[int | None, OPTIONS["max_bytes"]] = None,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """What a data set is understood to be: splits, classes, values, samples, and what a search of it would take.

    PATH is a built-in name, a file or a folder: images and labels as .npz, .npy, .h5 or .mat; a table (.csv); the
    files of MNIST and its family; CIFAR-10 or CIFAR-100, unpacked or as .tar.gz; images (.png, .jpg, ...) in a
    folder for each class.

    Args:
        path: What to read.
        layout: What the axes of images are, channels first (chw) or last (hwc), or one-dimensional signals.
        resolution: Shorter side in pixels that images are brought to, with their aspect kept.
        max_bytes: Most bytes that a file or folder may decode to; three times as many may be needed.
        json: Print one JSON object instead of text.
    """
    from nachos_min.report.data_report import report_data, show_data

    report = report_data(path, layout, resolution, max_bytes)
    return _shown(report.as_dict, partial(show_data, report), json=json)


def retrain(
    network: Annotated[str, Option(text("RUN#k"))],
    *,
    data: Annotated[str | None, Option(DATA, absent="where the search found it")] = None,
    max_bytes: Annotated[int | None, OPTIONS["max_bytes"]] = None,
    epochs: Annotated[int | None, Option(PASSES, absent="twice those that it had")] = None,
    seeds: Annotated[int, Option(PASSES)] = 3,
    workers: Annotated[int | None, Option(PROCESSES, absent="number of processors")] = None,
    out: Annotated[
        str | None, Option(text("folder"), absent="beside RUN: its name, the solution, the epochs")
    ] = None,
    json: Annotated[bool, Option(SWITCH)] = False,
    quiet: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """One network of a run trained again, for longer, and whether it became better.

    NETWORK is RUN#k (runs/digits#0), k a row of `show`. It is trained from new weights, several times,
    within the limits of its search. The result is a run like others. Each training is compared with the network
    before on the test images, under thresholds that cost no more MACs on the validation images. The same command
    continues.

    Exit status is 0 when done, 2 for bad usage or input, 3 when no training keeps the limits, 130 when interrupted.

    Args:
        network: What to train again.
        data: The data set of the search, if it has moved - a name, a file or a folder.
        max_bytes: Most bytes that it may decode to; three times as many may be needed.
        epochs: Passes over the training set in each training.
        seeds: Number of trainings, each with another seed.
        workers: Number of processes that train side by side; 0 trains in this process.
        out: Folder of the new run, created if missing.
        json: Print one JSON object instead of a table.
        quiet: Show no plan and no progress.
    """
    from nachos_min.nas import retraining

    options: dict[str, Any] = {"data": data, "max_bytes": max_bytes, "epochs": epochs, "seeds": seeds}
    options |= {"workers": workers, "out": out}
    return _printed(_watched(partial(retraining.retrain, network, **options), quiet=quiet), json=json)


def predict(
    network: Annotated[str, Option(text("RUN#k"))],
    data: Annotated[str, Option(text("name or path"))],
    *,
    split: Annotated[
        str | None,
        Option(choice("train", "validation", "calibration", "test", "all"), absent="test, or what there is"),
    ] = None,
    max_bytes: Annotated[int | None, OPTIONS["max_bytes"]] = None,
    to: Annotated[str | None, Option(text("file"))] = None,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """What a network of a run answers, where each sample leaves, and how much is right if labels are known.

    NETWORK is RUN#k (runs/digits#0), k a row of `show`. DATA is what `search` takes, with labels or without,
    also one image (.png, .jpg, ...) or a folder of images. Data that the run learned from are divided as they were.
    Of more than 10 samples each answer stands in --to and --json alone.

    Args:
        network: Which network answers.
        data: What it is given.
        split: Which part of the data.
        max_bytes: Most bytes that they may decode to; three times as many may be needed.
        to: A .csv file to write, with a line for each sample; names stand as they are, so that a spreadsheet must
            import them as text.
        json: Print one JSON object instead of text.
    """
    from nachos_min.report.prediction_report import report_prediction, show_prediction

    usable = to is None or os.path.isfile(to) or not os.path.exists(to)  # not after minutes of predicting
    if to is not None and not (usable and os.path.isdir(os.path.dirname(to) or ".")):
        raise InputError(f"--to must be a file in an existing folder, got {shorten(to)}")
    report = report_prediction(network, data, split, max_bytes)
    if to is not None:
        report.write(to)
    _shown(report.as_dict, partial(show_prediction, report), json=json)
    if to is not None and not json:
        tell(f"written: {to}")
    return DONE


def export(
    network: Annotated[str, Option(text("RUN#k"))],
    *,
    onnx: Annotated[str | None, Option(text("file"))] = None,
    gated: Annotated[bool, Option(SWITCH)] = False,
    npz: Annotated[str | None, Option(text("file"))] = None,
    c: Annotated[str | None, Option(text("folder"))] = None,
    int8: Annotated[bool, Option(SWITCH)] = False,
    data: Annotated[str | None, Option(DATA)] = None,
    max_bytes: Annotated[int | None, OPTIONS["max_bytes"]] = None,
    json: Annotated[bool, Option(SWITCH)] = False,
) -> int:
    """A network of a run as a file for other programs, compared with the network here.

    NETWORK is RUN#k (runs/digits#0), k a row of `show`. Scaling of images is inside the file, batch norm is
    folded. ONNX and C are run on the test images that the run keeps: labels and exits must be equal, confidences
    within 1e-5, or 1e-5 / T at a softmax temperature T below 1.

    Exit status is 0 when done, 2 for bad usage or input, 4 when a file answers otherwise.

    Args:
        network: What to export.
        onnx: An ONNX file to write, in which every exit is an output.
        gated: The ONNX file takes one image at a time, and computes nothing behind the exit where it leaves.
        npz: A file of plain NumPy arrays to write.
        c: A folder for a C source without dynamic memory, compiled and compared if there is a C compiler.
        int8: The C source computes in integers, under its own thresholds and with its own figures; needs data.
        data: The data set of the run, whose whole test split is compared.
        max_bytes: Most bytes that it may decode to; three times as many may be needed.
        json: Print one JSON object instead of text.
    """
    from nachos_min.export.files import export as write

    written = write(network, onnx=onnx, gated=gated, npz=npz, c=c, int8=int8, data=data, max_bytes=max_bytes)
    lines = (line for each in written for line in each.lines())
    found = {"network": network, "files": [each.as_dict() for each in written]}
    _shown(lambda: found, partial(tell, *lines), json=json)
    return DONE if all(each.comparison is None or each.comparison.equal for each in written) else DIFFERENT


COMMANDS: dict[str, Callable[..., int]] = {
    "search": search,
    "data": data,
    "show": show,
    "compare": compare,
    "predict": predict,
    "export": export,
    "retrain": retrain,
    "report": report,
    "plot": plot,
    "macs": macs,
}


def main(line: Sequence[str]) -> int:
    """Return the exit status, 0, 2, 3, 4 or 130, of what was typed after `python -m nachos_min`."""
    try:
        status = _run(list(line))
        sys.stdout.flush()
        return status
    except InputError as error:
        tell(f"error: {error}", to=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stopped:  # the message says how far a search came
        tell(str(stopped) or "interrupted", to=sys.stderr)
        return INTERRUPTED
    except (OSError, MemoryError) as error:  # a full disk behind `> results.json`, no memory for another process
        silence(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader of our output has left, as in `... | head -1`
            return DONE
        reason = "no more memory" if isinstance(error, MemoryError) else error.strerror or error
        named = f" {shorten(str(error.filename))}" if isinstance(error, OSError) and error.filename else ""
        tell(f"error: the system refused{named}: {reason}", to=sys.stderr)
        return BAD_INPUT


def _run(line: list[str]) -> int:
    name = line[0] if line else ""
    if name == "--version":
        print(f"nachos_min {__version__}")
        return DONE
    if not line or not {"-h", "--help"}.isdisjoint(line):
        print("\n".join(_command_help(name) if name in COMMANDS else _program_help()))
        return DONE
    if name not in COMMANDS:
        what = "a command must come first" if name.startswith("-") else "unknown command"
        advice = advise(name, COMMANDS, PROGRAM)
        raise InputError(f"{what}, got {shorten(name)}; {advice} (commands: {', '.join(COMMANDS)})")
    return _job(name, line[1:]).run()


@dataclass(frozen=True)
class _Job:
    """A command with its options, not yet run."""

    run: Callable[[], int]


def _job(name: str, rest: list[str]) -> _Job:
    """Return the job of command `name` with the arguments `rest`; InputError if one of them breaks its rule."""
    options, texts = options_of(COMMANDS[name]), read_line(name, rest, COMMANDS)

    @taking(options)
    def read(*needed: Any, **given: Any) -> _Job:
        return _Job(partial(COMMANDS[name], *needed, **given))

    SetParseFns(**{option: partial(each.kind.typed, flag(option)) for option, each in options.items()})(read)
    # Fire takes what stands behind a last "--" for itself, and a separator, "-" by default, for the end of a call.
    words = [*(f"--{option}={text}" for option, text in texts.items()), "--", "--separator=\0"]
    job: _Job = Fire(read, command=words, name=PROGRAM, serialize=lambda _job: None)
    return job


# Help. Fire's own goes to standard error, through a pager, and spells `--max_macs`.


def _program_help() -> list[str]:
    lines = [*_paragraph(PURPOSE), "", f"usage: {PROGRAM} COMMAND [--option VALUE ...]", "", "commands:"]
    for name, command in COMMANDS.items():
        lines += [f"  {name}", *_paragraph(_paragraphs(command)[0], INDENT)]
    lines += ["", f"Every option of a command:  {PROGRAM} {next(iter(COMMANDS))} --help"]
    return [*lines, f"Which version this is:      {PROGRAM} --version"]


def _command_help(name: str) -> list[str]:
    """Return what a command does, then its options by group, each with its form, default and meaning."""
    options, (summary, *description) = options_of(COMMANDS[name]), _paragraphs(COMMANDS[name])
    needed = [option.upper() for option, each in options.items() if each.default is REQUIRED]
    lines = [*_paragraph(summary), ""]
    lines += [f"usage: {' '.join([PROGRAM, name, *needed])} [--option VALUE ...]"]
    usual = [] if any(each.startswith("Exit status") for each in description) else [USUAL_STATUS]
    for paragraph in [*description, *usual]:
        lines += ["", *_paragraph(paragraph)]
    optional = {option: each for option, each in options.items() if each.default is not REQUIRED}
    for group in dict.fromkeys(each.group for each in optional.values()):
        lines += ["", f"{group}:"]
        for option, each in optional.items():
            if each.group == group:
                form = f"{flag(option)} {each.kind.form}".strip()
                lines += _paragraph(f"{form}  (default: {each.default_text})", 2)
                lines += _paragraph(each.meaning, INDENT)
    return lines


def _paragraphs(command: Callable[..., int]) -> list[str]:
    """Return the paragraphs of a command's docstring above its arguments."""
    return (inspect.getdoc(command) or "").split("\n\nArgs:")[0].split("\n\n")


def _paragraph(text: str, indent: int = 0) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
