"""One HTML file about a run: its front, a card for each network, how the search went, how it was made.

The page needs no network, and without its script it still has every table and figure that does not depend on which
solution is selected. What does depend on that travels as JSON. Left out: looks, which are `run_report.html`'s.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from nachos_min.atomic import replacing
from nachos_min.data.dataset import extent, kind_of
from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, Map, MBConvSpec
from nachos_min.eenn.lowering import head_costs, part_cost
from nachos_min.eenn.thresholds import apply_thresholds, confusion_by_exit
from nachos_min.errors import InputError, some
from nachos_min.nas.evaluation import Evaluation
from nachos_min.nas.result import Archive, Network, SearchResult, result_of, shown_rows
from nachos_min.nas.runs import Examples, examples, stored_evaluations, stored_problem
from nachos_min.report.charts import Plot, axis, short
from nachos_min.report.gain_report import gain_sentence
from nachos_min.report.pictures import most_pictures, pictures, sheet
from nachos_min.report.search_report import closest_sentence, exit_shares, share
from nachos_min.store import open_run

MOST = 150  # solutions on the page, which keeps it small
A_EXIT = 8  # example images of an exit
MATRIX = 20  # classes up to which confusion is a matrix; of more the commonest mistakes are listed
MISTAKES = 12
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEMPLATE = Path(__file__).with_name("run_report.html")


def write_report(run: str | Path, to: str | Path | None = None) -> str:
    """Return what was written, in one sentence: the report on the run in folder `run`, as the file `to`.

    Args:
        run: folder of a search, finished or not; its data set is not needed.
        to: the file, replaced if there is one; None: report.html in the run's folder.

    Raises:
        InputError: as `load_run`, nothing is trained yet, or the file cannot be written.
    """
    story = read_story(run)
    file, text = Path(run) / "report.html" if to is None else Path(to), page(story).encode()
    put(file, text)
    found = f"{some(len(story.rows), 'solution')} of {some(len(story.networks), 'network')}"
    return f"{file}: {found}, {len(text) / 1e6:.2f} MB"


def put(file: Path, content: bytes) -> None:
    """Write a file in one step; InputError if the system refuses."""
    if file.is_dir():
        raise InputError(f"--to must name a file, got the folder {file}")
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"--to must name a file that can be written, got {file}: {error.strerror}") from None


@dataclass(frozen=True, eq=False)
class Story:
    """All that the page tells of."""

    name: str  # of the run, as commands take it
    archive: Archive
    result: SearchResult
    examples: Examples | None
    identity: Mapping[str, Any]

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What the run stores of its data."""
        return self.archive.problem.about

    @cached_property
    def rows(self) -> list[Network]:
        """The solutions on the page, the most accurate first: evenly spaced if there are too many."""
        front, count = self.result.front, min(MOST, len(self.result.front))
        return [front[round(place * (len(front) - 1) / max(1, count - 1))] for place in range(count)]

    @cached_property
    def networks(self) -> dict[tuple[Any, ...], int]:
        """Number of each network on the page, by its training."""
        return {trial: number for number, trial in enumerate(dict.fromkeys(map(trained_as, self.rows)))}

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.about["class_names"]) or [str(each) for each in range(self.about["classes"])]

    @property
    def accuracy(self) -> str:
        """What the accuracy is called."""
        return "balanced accuracy" if self.result.metric == "balanced" else "accuracy"


def trained_as(row: Network) -> tuple[Any, ...]:
    """Return which training a solution is of."""
    trial = row.evaluation.trial
    return trial.genome, trial.effort, trial.repeat


def read_story(run: str | Path) -> Story:
    """Return what the run in a folder has to tell; InputError as `write_report`."""
    problem, path = stored_problem(run), Path(run)
    archive = Archive(problem, stored_evaluations(run))
    if not archive.evaluations:
        raise InputError(f"a report needs a trained network, got run {run} without one")
    result = result_of(archive, path, reused=len(archive.evaluations), inadmissible=None)
    stored = open_run(run)
    kept = examples(run) if stored.get("examples") else None
    return Story(path.name if path.is_absolute() else str(path), archive, result, kept, stored.configuration)


def page(story: Story) -> str:
    """Return the HTML of the report."""
    found, data = story.result, named(story.archive.problem.configuration.data)
    parts = {
        "title": escape(f"Early-exit networks for {data}"),
        "summary": escape(headline(story)),
        "front": front_chart(story),
        "legend": legend(story),
        "table": solutions(story),
        "choose": "".join(
            f'<button data-k="{row.solution}">network {letter(number)}</button>'
            for row, number in first_rows(story)
        ),
        "cards": "".join(card(story, row, number) for row, number in first_rows(story)),
        "progress": progress_chart(story),
        "facts": facts(story),
        "stored": escape(json.dumps(plain(story.identity), indent=1)),
        "run": escape(quote(story.name)),
        "python_run": escape(repr(story.name)),
        "first": str(story.rows[0].solution if story.rows else 0),
        "accuracy": escape(story.accuracy),
        "nothing": "" if found.front else f"<p><strong>{escape(closest_sentence(found))}</strong></p>",
        "data": json.dumps(selected(story), separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], TEMPLATE.read_text(encoding="utf-8"))


def named(path: str) -> str:
    """Return the name of a data set without the folders of this machine."""
    return Path(path).name or path


def plain(value: Any) -> Any:
    """Return stored values as JSON has them, and a data set by its name."""
    if isinstance(value, Mapping):
        return {key: named(each) if key == "data" else plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def letter(number: int) -> str:
    """Return what network `number` is called.

    >>> letter(0), letter(27)
    ('A', 'B2')
    """
    more, place = divmod(number, len(LETTERS))
    return LETTERS[place] + (str(more + 1) if more else "")


def first_rows(story: Story) -> list[tuple[Network, int]]:
    """Return of each network its most accurate solution, and its number."""
    found = dict[int, Network]()
    for row in story.rows:
        found.setdefault(story.networks[trained_as(row)], row)
    return [(row, number) for number, row in found.items()]


def headline(story: Story) -> str:
    """Return the outcome in a few sentences."""
    found, rows = story.result, story.result.front
    trained = f"{some(found.evaluated, 'network')} {'was' if found.evaluated == 1 else 'were'} trained"
    if not rows:
        return f"{trained}, and no solution keeps the limits."
    networks = some(len({trained_as(row) for row in rows}), "network")
    left = f" {len(story.rows)} of them are on this page." if len(story.rows) < len(rows) else ""
    best, test = rows[0], rows[0].test
    low, high = test.metric_interval95
    return (
        f"{trained}; {some(len(rows), 'solution')} of {networks} keep the limits.{left} The most accurate has "
        f"{story.accuracy} {best.metric:.1%} at {best.average_macs:,.0f} average MACs; on the test images "
        f"{test.metric:.1%} ({low:.1%} to {high:.1%}) at {test.average_macs:,.0f}."
    )


# Charts


def front_plot(story: Story) -> Plot:
    """Return the axes of the front; candidates that are much worse than the front stand at its lower edge."""
    found, limits = story.archive.networks, story.result.limits
    ends = [each.ends for each in story.archive.evaluations]
    least = [float(np.quantile([1 - error for error, _ in ends], 0.25)), limits.min_accuracy or 1.0]
    least += [figures for row in story.rows for figures in (row.metric, row.test.metric)]
    macs = [row.average_macs for row in found] + [row.test.average_macs for row in story.rows]
    macs += [] if limits.max_macs is None else [limits.max_macs]
    across = axis("average MACs of an answer", macs, short)
    return Plot(across, axis(story.accuracy, (min(least), 1.0), "{:.0%}".format, 1.0))


def curves(story: Story) -> list[list[tuple[float, float]]]:
    """Return average MACs and accuracies of each trained network, under the thresholds that are worth having."""
    by_network = groupby(story.archive.networks, key=trained_as)
    return [[(row.average_macs, row.metric) for row in undominated(rows)] for _, rows in by_network]


def front_chart(story: Story) -> str:
    """Return the chart of the front, whose solutions can be selected."""
    plot, limits, marks = front_plot(story), story.result.limits, []
    marks.append(plot.lines("candidates", curves(story)))
    if limits.max_macs is not None:
        marks.append(plot.limit(f"at most {limits.max_macs:,} MACs", x=limits.max_macs))
    if limits.min_accuracy:
        marks.append(plot.limit(f"at least {limits.min_accuracy:.4g}", y=limits.min_accuracy))
    marks.append('<circle id="on-test" r="9" cx="-99" cy="-99"/>')
    each_mark = []
    for row in sorted(story.rows, key=lambda row: row.average_macs):
        number = story.networks[trained_as(row)]
        x, y = plot.at(row.average_macs, row.metric)
        said = f"#{row.solution}, network {letter(number)}: {row.metric:.1%}, {row.average_macs:,.0f} MACs"
        each_mark.append(
            f'<use href="#mark{number % 4}" class="point n{number % 6}" x="{x}%" y="{y}%" role="radio" '
            f'aria-checked="false" tabindex="-1" data-k="{row.solution}"><title>{said}</title></use>'
        )
    if each_mark:
        label = "Solutions, from few to many MACs"
        marks.append(f'<g role="radiogroup" aria-label="{label}" id="points">{"".join(each_mark)}</g>')
    title = f"{story.accuracy} against average MACs: {some(len(story.rows), 'solution')}"
    return plot.svg(title, "".join(marks), group=True)


def legend(story: Story) -> str:
    """Return what the marks of the front mean."""
    return "".join(
        f'<li><svg class="mark n{number % 6}" aria-hidden="true"><use href="#mark{number % 4}" x="8" y="8"/></svg>'
        f"network {letter(number)}</li>"
        for _, number in first_rows(story)
    )


def progress_chart(story: Story) -> str:
    """Return the chart of the hypervolume after each network."""
    steps = list(progress(story))
    across = axis("networks trained", (0, len(steps)), "{:g}".format, float(len(steps)))
    up = axis("hypervolume", [area for pair in steps for area in pair], "{:.3g}".format)
    plot, lines = Plot(across, up), []
    for place, name in enumerate(("every", "admissible")):
        areas = [pair[place] for pair in steps]
        corners = [
            corner for at, area in enumerate(areas, 1) for corner in ((at, areas[max(0, at - 2)]), (at, area))
        ]
        lines.append(plot.lines(name, [corners]))
    every, admissible = steps[-1]
    title = f"Hypervolume after {some(len(steps), 'network')}: all {every:.4f}, admissible {admissible:.4f}"
    return plot.svg(title, "".join(lines))


def progress(story: Story) -> Iterator[tuple[float, float]]:
    """Yield the hypervolume of all and of the admissible networks after each one, as shares of the reference."""
    so_far, best, whole = Archive(story.archive.problem), list[Network](), float(np.prod(story.archive.reference))
    for found in story.archive.candidates:
        so_far.add(found)
        if isinstance(found, Evaluation):
            best = undominated([*best, *(so_far.network(found, point) for point in found.points)])
            areas = (so_far.area(row.point.shown for row in rows) for rows in (best, shown_rows(so_far)))
            every, admissible = (area / whole for area in areas)
            yield every, admissible


def undominated(rows: Iterable[Network]) -> list[Network]:
    """Return the rows that no other is as good as in both shown figures: what the area depends on."""
    found, best = list[Network](), -1.0
    for row in sorted(rows, key=lambda row: (row.average_macs, -row.metric)):
        if row.metric > best:
            best = row.metric
            found.append(row)
    return found


# Tables and cards


def solutions(story: Story) -> str:
    """Return the rows of the table of solutions."""
    rows = []
    for row in story.rows:
        low, high = row.test.metric_interval95
        missed = "" if row.test.kept else ' <span class="missed">misses a limit</span>'
        cells = (
            f"<td>{letter(story.networks[trained_as(row)])}</td>",
            f"<td>{row.metric:.1%}</td><td>{row.average_macs:,.0f}</td>",
            f"<td>{row.test.metric:.1%} ({low * 100:.1f}-{high * 100:.1f}){missed}</td>",
            f"<td>{row.test.average_macs:,.0f}</td><td>{exit_shares(row)}</td>",
        )
        button = f'<button data-k="{row.solution}">#{row.solution}</button>'
        rows.append(f'<tr data-k="{row.solution}"><th scope="row">{button}</th>{"".join(cells)}</tr>')
    return "".join(rows)


@dataclass(frozen=True)
class Piece:
    """A part of a network as it is drawn."""

    kind: str  # stem, stage, exit or final
    title: str
    does: tuple[str, ...]
    shape: Map | None  # of the map that it makes
    macs: int
    exit: int | None = None  # from 0


def pieces(architecture: Architecture) -> list[Piece]:
    """Return the parts of a network in the order in which they run; their MACs add up to those of the last exit."""
    flat, stem, classes = architecture.flat, architecture.stem, architecture.classes
    shape = stem.output(architecture.input_shape)
    does = f"{side(stem.kernel, flat)} convolution{stride(stem.stride)}, {stem.activation}"
    found = [Piece("stem", "Stem", (does,), shape, part_cost(stem, architecture.input_shape, flat=flat).macs)]
    heads = {
        early.stage: (number, early.head, cost.macs)
        for number, (early, cost) in enumerate(zip(architecture.exits, head_costs(architecture), strict=False))
    }
    trunk = [("Trunk", architecture.trunk)] if architecture.trunk else []
    for title, blocks in [*trunk, *((f"Stage {n}", each) for n, each in enumerate(architecture.stages, 1))]:
        macs, lines = 0, []
        for block in blocks:
            macs += part_cost(block, shape, flat=flat).macs
            shape = block.output(shape)
            lines.append(block_line(block, flat))
        found.append(Piece("stage", title, tuple(lines), shape, macs))
        number = int(title.split()[1]) if title != "Trunk" else 0
        if number in heads:
            place, head, cost = heads[number]
            found.append(
                Piece("exit", f"Exit after stage {number}", head_lines(head, classes, flat), None, cost, place)
            )
    title, cost = f"Final exit, after stage {len(architecture.stages)}", head_costs(architecture)[-1].macs
    last = final_lines(architecture.final, classes)
    return [*found, Piece("exit", title, last, None, cost, len(architecture.exits))]


def side(pixels: int, flat: bool) -> str:
    """Return a window for reading."""
    return f"1x{pixels}" if flat else f"{pixels}x{pixels}"


def stride(pixels: int) -> str:
    """Return a stride for reading, if there is one."""
    return f", stride {pixels}" if pixels > 1 else ""


def block_line(block: MBConvSpec, flat: bool) -> str:
    """Return an inverted residual for reading."""
    widths = [block.in_channels, *([block.middle] if block.expand else []), block.out_channels]
    notes = f", squeeze to {block.squeezed}" if block.squeezed else ""
    notes += ", residual" if block.residual else ""
    return f"{side(block.kernel, flat)}, channels {' → '.join(map(str, widths))}{stride(block.stride)}{notes}"


def head_lines(head: ExitHead, classes: int, flat: bool) -> tuple[str, ...]:
    """Return an early exit for reading."""
    pool = [f"max pool {side(head.pool, flat)}"] if head.pool > 1 else []
    layers = [f"{side(3, flat)} convolution to {width} channels" for width in head.widths]
    return (*pool, *layers, f"linear to {classes} classes and a confidence")


def final_lines(head: FinalHead, classes: int) -> tuple[str, ...]:
    """Return the final exit for reading."""
    expand = [f"1x1 convolution to {head.expand} channels"] if head.expand else []
    mix = [f"mix to {head.mix} channels"] if head.mix else []
    return (*expand, "mean over the map", *mix, f"linear to {classes} classes")


def card(story: Story, row: Network, number: int) -> str:
    """Return the card of a network: its parts drawn with their MACs, and room for the selected solution."""
    architecture = story.archive.problem.coder.decode(row.genome)
    whole, drawn = row.worst_macs, []
    for piece in pieces(architecture):
        lines = "".join(f"<li>{line}</li>" for line in piece.does)
        made = (
            "" if piece.shape is None else f'<p class="shape">map {extent(piece.shape[:2])} x {piece.shape[2]}</p>'
        )
        part = f'<p class="bar" style="--part:{100 * piece.macs / whole:.2f}%">{piece.macs:,} MACs, '
        part += f"{share(piece.macs, whole)}</p>"
        leaves = ""
        if piece.exit is not None:
            leaves = (
                f'<p class="leaves" data-exit="{piece.exit}">answer here: {row.exit_costs[piece.exit]:,} MACs</p>'
            )
        drawn.append(f'<li class="{piece.kind}"><h4>{piece.title}</h4>{made}<ul>{lines}</ul>{part}{leaves}</li>')
    confidence = "learned" if not row.temperatures else "softmax at a fitted temperature"
    height, width, channels = architecture.input_shape
    said = (
        f"{row.params:,} parameters; {row.worst_macs:,} MACs if all exits are passed; activations of "
        f"{row.peak_bytes:,} bytes in float32; input {extent((height, width))} x {channels}; "
        f"confidence {confidence}."
    )
    return (
        f'<article class="card n{number % 6}" id="network-{number}" data-network="{number}" tabindex="-1" '
        f'aria-labelledby="title-{number}"><h3 id="title-{number}">Network {letter(number)}</h3>'
        f"<p>{said}</p><h4>Parts in the order in which they run</h4>"
        f'<ol class="flow">{"".join(drawn)}</ol><div class="solution" aria-live="off"></div></article>'
    )


def facts(story: Story) -> str:
    """Return the rows of the table of how the run was made."""
    configuration, found, about = story.archive.problem.configuration, story.result, story.about
    space, failures = story.archive.problem.space.name, found.failed
    samples = ", ".join(f"{count:,} {name}" for name, count in about.get("samples", {}).items())
    height, width, channels = about["image_shape"]
    kept = [f"{name.replace('_', ' ')} {limit:,}" for name, limit in asdict(found.limits).items() if limit]
    rows = {
        "Data": f"{named(configuration.data)}: {some(len(story.classes), 'class', 'es')}, "
        f"{kind_of((height, width))}, {some(channels, 'channel')}",
        "Samples": samples or "not stored",
        "Space": f"{space}; its largest network costs {found.reference[1]:,} MACs",
        "Limits": ", ".join(kept) or "none",
        "Search": f"method {configuration.method}, seed {found.seed}, margin {found.margin}",
        "Training": ", ".join(f"{name} {value}" for name, value in plain(story.identity["recipe"]).items()),
        "Networks": f"{found.evaluated:,} trained, {found.admissible:,} admissible, {failures:,} failed",
        "Figures shown": shown_split(story),
        "Versions": ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()),
        "Data's SHA-256": story.identity["data_content"],
    }
    rows |= {} if found.retrained is None else {"Trained again": gain_sentence(found.retrained)}
    return "".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>' for name, value in rows.items())


def shown_split(story: Story) -> str:
    """Return which images the figures are of."""
    halves = any(row.point.calibration for row in story.archive.networks)
    return "of the half of the validation split that chose nothing" if halves else "of the validation split"


# What depends on the selected solution


def selected(story: Story) -> dict[str, Any]:
    """Return the JSON object that the page's script reads: pictures, classes, and for each solution its figures."""
    plot = front_plot(story)
    kept, found = story.examples, [_solution(story, row, plot) for row in story.rows]
    with_answers = [row.evaluation.on_test for row in story.rows]
    whole: dict[str, Any] = {"classes": story.classes, "rows": found, "matrix": len(story.classes) <= MATRIX}
    if kept is None or None in with_answers:
        return whole
    used = dict[int, int]()  # which of the stored images, and its place on the sheet
    most = most_pictures(story.about["image_shape"])
    for row, each in zip(story.rows, found, strict=True):
        each["confusion"] = _confusion(row, kept, len(story.classes))
        for left, shown in zip(each["exits"], _leaving(row, kept, used, most), strict=True):
            left["examples"] = shown
    values, stored = story.about["values"], kept.images[list(used)]
    if used:
        whole["sheet"] = asdict(sheet(pictures(stored, values["least"], values["most"])))
    return whole


def _solution(story: Story, row: Network, plot: Plot) -> dict[str, Any]:
    low, high = row.test.metric_interval95
    test, costs = row.test, row.exit_costs
    where = zip(row.exits, row.thresholds, costs, row.exit_counts, test.exit_counts, strict=True)
    return {
        "k": row.solution,
        "network": story.networks[trained_as(row)],
        "at": plot.at(row.average_macs, row.metric),
        "test_at": plot.at(test.average_macs, test.metric),
        "figures": [
            [story.accuracy, f"{row.metric:.1%}"],
            ["average MACs", f"{row.average_macs:,.0f}"],
            [f"test {story.accuracy} (95% interval)", f"{test.metric:.1%} ({low * 100:.1f}-{high * 100:.1f})"],
            ["test average MACs", f"{test.average_macs:,.0f}"],
            ["limits on the test split", "kept" if test.kept else "missed"],
        ],
        "exits": [
            {
                "stage": stage,
                "threshold": f"{threshold:.3f}",
                "cost": f"{cost:,}",
                "share": share(count, row.samples),
                "test_share": share(on_test, test.samples),
                "width": round(100 * count / row.samples, 1),
            }
            for stage, threshold, cost, count, on_test in where
        ],
    }


def _confusion(row: Network, kept: Examples, classes: int) -> list[list[list[int]]]:
    """Return for each exit [right class, answered class, samples], the most frequent first; no zeros."""
    assert row.evaluation.on_test is not None, "the caller has looked"
    found = []
    for table in confusion_by_exit(row.evaluation.on_test, row.thresholds, kept.labels, classes):
        cells = [[right, answer, int(table[right, answer])] for right, answer in np.argwhere(table).tolist()]
        cells.sort(key=lambda cell: (-cell[2], cell[:2]))
        wrong = [cell for cell in cells if cell[0] != cell[1]]
        found.append(cells if classes <= MATRIX else wrong[:MISTAKES])
    return found


def _leaving(row: Network, kept: Examples, used: dict[int, int], most: int) -> list[list[list[int]]]:
    """Return for each exit [place on the sheet, right class, answered class] of images that leave there.

    Images that are `used` already are preferred; at most `most` are used in all.
    """
    tables = row.evaluation.on_test
    assert tables is not None, "the caller has looked"
    leaves = apply_thresholds(tables.confidence, row.thresholds)[kept.rows]
    found = []
    for place in range(len(row.exits)):
        here = sorted(np.flatnonzero(leaves == place).tolist(), key=lambda image: image not in used)
        shown = []
        for image in here[:A_EXIT]:
            if image in used or len(used) < most:
                at, sample = used.setdefault(image, len(used)), kept.rows[image]
                shown.append([at, int(kept.labels[sample]), int(tables.predicted[sample, place])])
        found.append(shown)
    return found
