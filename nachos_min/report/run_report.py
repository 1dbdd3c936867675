"""One HTML file about a run: its front, a card for each network, how the search went, how it was made.

The page needs no network. Tables and charts stand in it; what depends on the selected solution travels as JSON to
its script. Looks and script are in `run_report.html`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from nachos_min.data.dataset import extent, kind_of
from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, Map, MBConvSpec, Stem
from nachos_min.eenn.lowering import Part, head_costs, part_cost
from nachos_min.eenn.thresholds import ALWAYS, apply_thresholds, confusion_by_exit
from nachos_min.errors import InputError, some
from nachos_min.files import write_file
from nachos_min.nas.evaluation import Evaluation, Trial
from nachos_min.nas.result import Archive, Network, SearchResult, result_of, shown_rows
from nachos_min.nas.runs import Examples, examples, open_run, stored_evaluations, stored_problem
from nachos_min.nas.views import by_network, html_table, setting_names, undominated
from nachos_min.report.charts import Plot, axis, short
from nachos_min.report.pictures import most_pictures, pictures, sheet
from nachos_min.report.search_report import closest_sentence, gain_sentence, share

MOST = 150  # solutions on the page, which keeps it small
A_EXIT = 8  # example images of an exit
MATRIX, MISTAKES = 20, 12  # confusion of so many classes is a matrix; of more the commonest mistakes are listed
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_report(run: str | Path, to: str | Path | None = None) -> str:
    """Return what was written, in one line: the report on the run in folder `run`, as `to` or as its report.html.

    InputError as of `load_run`, if nothing is trained yet, or if the file cannot be written.
    """
    story = read_story(run)
    file = Path(run) / "report.html" if to is None else Path(to)
    content = page(story).encode(errors="backslashreplace")
    write_file(file, content)
    return f"{file}: {story.size}, {len(content) / 1e6:.2f} MB"


@dataclass(frozen=True, eq=False)
class Story:
    """All that the page tells of."""

    name: str  # of the run, as commands take it
    archive: Archive
    result: SearchResult
    examples: Examples | None  # None: the run is an older one
    identity: Mapping[str, Any]  # its configuration as it is stored

    @cached_property
    def rows(self) -> list[Network]:
        """The solutions on the page, the most accurate first: evenly spaced if there are too many."""
        front, count = self.result.front, min(MOST, len(self.result.front))
        return [front[round(place * (len(front) - 1) / max(1, count - 1))] for place in range(count)]

    @cached_property
    def networks(self) -> dict[Trial, list[Network]]:
        """The solutions of each network on the page."""
        return by_network(self.rows)

    @cached_property
    def numbers(self) -> dict[Trial, int]:
        """The number of each network."""
        return {trial: number for number, trial in enumerate(self.networks)}

    @property
    def size(self) -> str:
        """How many solutions and networks there are."""
        return f"{some(len(self.rows), 'solution')} of {some(len(self.networks), 'network')}"

    @property
    def curves(self) -> list[list[tuple[float, float]]]:
        """Average MACs and accuracy of each trained network, under the thresholds that are worth having."""
        networks = by_network(self.archive.networks).values()
        return [[(row.average_macs, row.metric) for row in undominated(rows)] for rows in networks]

    @property
    def accuracy(self) -> str:
        """What the accuracy is called."""
        return "balanced accuracy" if self.result.metric == "balanced" else "accuracy"


def read_story(run: str | Path) -> Story:
    """Return what the run in a folder has to tell; InputError as `write_report`."""
    path, problem = Path(run), stored_problem(run)
    archive = Archive(problem, stored_evaluations(run, problem))
    if not archive.evaluations:
        raise InputError(f"a report needs a trained network, got run {run} without one")
    result, stored = result_of(archive, path, reused=len(archive), inadmissible=None), open_run(run)
    name = path.name if path.is_absolute() else str(path)
    return Story(name, archive, result, examples(run) if stored.get("examples") else None, stored.configuration)


def page(story: Story) -> str:
    """Return the HTML of the report."""
    found, first = story.result, story.rows[0].solution if story.rows else 0
    missed = "" if all(row.test.kept for row in story.rows) else "; ! misses a limit on the test split"
    caption = f"{story.size} under different thresholds{missed}"
    parts = {
        "title": escape(f"Early-exit networks for {named(story.archive.problem.configuration.data)}"),
        "summary": escape(headline(story)),
        "front": front_chart(story),
        "legend": legend(story),
        "table": html_table(story.rows, caption, setting_names(found.settings)),
        "cards": "".join(card(story, rows[0]) for rows in story.networks.values()),
        "progress": progress_chart(story),
        "facts": "".join(
            f'<tr><th scope="row">{name}</th><td>{escape(text)}</td></tr>' for name, text in facts(story).items()
        ),
        "stored": escape(json.dumps(plain(story.identity), indent=1)),
        "run": escape(quote(story.name)),
        "python_run": escape(repr(story.name)),
        "first": str(first),
        "accuracy": story.accuracy,
        "hidden": "" if found.front else "hidden",
        "nothing": "" if found.front else f"<p><strong>{escape(closest_sentence(found))}</strong></p>",
        "data": json.dumps(selected(story), separators=(",", ":")).replace("<", "\\u003c"),
    }
    template = Path(__file__).with_name("run_report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


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


def headline(story: Story) -> str:
    """Return the outcome in a few sentences."""
    rows = story.result.front
    trained = f"Networks trained: {story.result.evaluated:,}."
    if not rows:
        return f"{trained} No solution keeps the limits."
    networks = some(len(by_network(rows)), "network")
    left = f" {len(story.rows)} of them are on this page." if len(story.rows) < len(rows) else ""
    best, (low, high) = rows[0], rows[0].test.metric_interval95
    return (
        f"{trained} Within the limits: {some(len(rows), 'solution')} of {networks}.{left} The most accurate has "
        f"{story.accuracy} {best.metric:.1%} at {best.average_macs:,.0f} average MACs; on the test split "
        f"{best.test.metric:.1%} ({low:.1%} to {high:.1%}) at {best.test.average_macs:,.0f}."
    )


def facts(story: Story) -> dict[str, str]:
    """Return how the run was made, by heading."""
    problem, found = story.archive.problem, story.result
    configuration, about, again = problem.configuration, problem.about, found.retrained
    (height, width, channels), recipe = about["image_shape"], story.identity["recipe"]
    data = some(about["classes"], "class", "es"), kind_of((height, width)), some(channels, "channel")
    limits = (f"{name.replace('_', ' ')} {limit:,}" for name, limit in asdict(found.limits).items() if limit)
    halves = any(row.point.calibration for row in story.archive.networks)
    rows = {
        "Data": f"{named(configuration.data)}: {', '.join(data)}",
        "Samples": ", ".join(f"{count:,} {name}" for name, count in about.get("samples", {}).items()),
        "Space": f"{problem.space.name}; its largest network costs {found.reference[1]:,} MACs",
        "Limits": ", ".join(limits) or "none",
        "Search": f"method {configuration.method}, seed {found.seed}, margin {found.margin:g}",
        "Training": ", ".join(f"{name} {value}" for name, value in recipe.items() if value is not None),
        "Networks": f"{found.evaluated:,} trained, {found.admissible:,} admissible, {found.failed:,} failed",
        "Figures": "of the validation split" + (", the half that chose nothing" if halves else ""),
        "Trained again": gain_sentence(again) if again else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()),
        "SHA-256 of data": story.identity["data_content"],
    }
    return {name: text for name, text in rows.items() if text}


# Charts


def front_plot(story: Story) -> Plot:
    """Return the axes of the front; candidates that are much worse than the front stand at its lower edge."""
    limits, found, tests = story.result.limits, story.archive.networks, [row.test for row in story.rows]
    best = [1 - each.ends[0] for each in story.archive.evaluations]
    least = min([float(np.quantile(best, 0.25)), limits.min_accuracy or 1.0, *(row.metric for row in story.rows)])
    macs = [row.average_macs for row in found] + [limits.max_macs or found[0].average_macs]
    across = axis("average MACs of an answer", macs + [each.average_macs for each in tests], short)
    return Plot(across, axis(story.accuracy, [least, 1.0, *(each.metric for each in tests)], "{:.0%}".format))


def front_chart(story: Story) -> str:
    """Return the chart of the front, whose solutions can be selected."""
    plot, limits, points = front_plot(story), story.result.limits, []
    dots = [[point] for curve in story.curves for point in curve]
    marks = plot.lines("candidates", story.curves) + plot.lines("candidates dots", dots)
    if limits.max_macs is not None:
        marks += plot.limit(f"at most {limits.max_macs:,} MACs", x=limits.max_macs)
    if limits.min_accuracy:
        marks += plot.limit(f"at least {limits.min_accuracy:.4g}", y=limits.min_accuracy)
    for row in sorted(story.rows, key=lambda row: row.average_macs):
        number, (x, y) = story.numbers[row.evaluation.trial], plot.at(row.average_macs, row.metric)
        said = f"#{row.solution}, network {letter(number)}: {row.metric:.1%}, {row.average_macs:,.0f} MACs"
        points.append(
            f'<use href="#mark{number % 4}" class="point n{number % 6}" x="{x}%" y="{y}%" role="radio" '
            f'aria-checked="false" tabindex="-1" data-k="{row.solution}"><title>{said}</title></use>'
        )
    group = '<g role="radiogroup" aria-label="Solutions, from few to many MACs">'
    over = '</g><g aria-hidden="true"><circle id="on-test" r="0"/><use id="chosen"/></g>'
    marks += f"{group}{''.join(points)}{over}" if points else ""
    return plot.svg(f"{story.accuracy} against average MACs: {story.size}", marks, group=True)


def legend(story: Story) -> str:
    """Return the networks with their marks and the solutions to look at first."""
    names, lines = setting_names(story.result.settings), ""
    for number, rows in enumerate(story.networks.values()):
        known = {row.solution: names[row.solution] for row in rows if row.solution in names}
        known = known or {rows[0].solution: ""}  # other networks are better everywhere
        buttons = "".join(f'<button data-k="{k}">{f"#{k} {name}".strip()}</button>' for k, name in known.items())
        mark = (
            f'<svg class="mark n{number % 6}" aria-hidden="true"><use href="#mark{number % 4}" x="8" y="8"/></svg>'
        )
        lines += f"<li>{mark}network {letter(number)}: {buttons}</li>"
    return lines


def progress_chart(story: Story) -> str:
    """Return the chart of the hypervolume after each network."""
    steps = list(progress(story))
    across = axis("networks trained", (0, max(5, len(steps))), "{:g}".format)
    plot = Plot(across, axis("hypervolume", [area for pair in steps for area in pair], "{:.4g}".format))
    lines = ""
    for name, areas in zip(("every", "admissible"), zip(*steps, strict=True), strict=True):
        corners = [((at, areas[max(0, at - 2)]), (at, area)) for at, area in enumerate(areas, 1)]
        lines += plot.lines(name, [[corner for pair in corners for corner in pair]])
    every, admissible = steps[-1]
    title = f"Hypervolume after {some(len(steps), 'network')}: all {every:.4f}, admissible {admissible:.4f}"
    return plot.svg(title, lines)


def progress(story: Story) -> Iterator[tuple[float, float]]:
    """Yield the hypervolume of all and of the admissible networks after each one, as shares of the reference."""
    so_far, best = Archive(story.archive.problem), list[Network]()
    for found in story.archive.candidates:
        so_far.add(found)
        if isinstance(found, Evaluation):
            best = undominated([*best, *(so_far.network(found, point) for point in found.points)])
            areas = [so_far.area(row.point.shown for row in rows) for rows in (best, shown_rows(so_far))]
            yield areas[0] / prod(so_far.reference), areas[1] / prod(so_far.reference)


# A card for each network


class Piece(NamedTuple):
    """A part of a network as it is drawn."""

    title: str
    does: list[str]
    made: Map | None  # shape of the map behind it
    macs: int
    exit: int | None  # from 0


def pieces(architecture: Architecture) -> Iterator[Piece]:
    """Yield the parts of a network in the order in which they run."""
    flat, shape, classes = architecture.flat, architecture.input_shape, architecture.classes
    heads: list[Part] = [*(early.head for early in architecture.exits), architecture.final]
    at_stage = {stage: number for number, stage in enumerate(architecture.exit_stages)}
    last, costs, stem = len(architecture.stages), head_costs(architecture), (architecture.stem,)
    parts: list[tuple[Stem | MBConvSpec, ...]] = [stem, architecture.trunk, *architecture.stages]
    for stage, blocks in enumerate(parts, -1):
        macs, does = 0, []
        for block in blocks:
            macs += part_cost(block, shape, flat=flat).macs
            shape = block.output(shape)
            does += described(block, flat, classes)
        if blocks:
            yield Piece({-1: "Stem", 0: "Trunk"}.get(stage, f"Stage {stage}"), does, shape, macs, None)
        if stage in at_stage:
            number, name = at_stage[stage], f"{'Final exit,' if stage == last else 'Exit'} after stage {stage}"
            yield Piece(name, described(heads[number], flat, classes), None, costs[number].macs, number)


def described(part: Part, flat: bool, classes: int) -> list[str]:
    """Return what a part does, layer by layer."""

    def side(pixels: int) -> str:
        return f"1x{pixels}" if flat else f"{pixels}x{pixels}"

    match part:
        case Stem():
            return [f"{side(part.kernel)} convolution, stride {part.stride}, {part.activation}"]
        case MBConvSpec():
            widths = [part.in_channels, *([part.middle] if part.expand else []), part.out_channels]
            notes = {f"stride {part.stride}": part.stride > 1, f"squeeze to {part.squeezed}": part.squeezed}
            said = [note for note, holds in (notes | {"residual": part.residual}).items() if holds]
            return [", ".join([side(part.kernel), f"channels {' → '.join(map(str, widths))}", *said])]
        case ExitHead():
            pool = [f"max pool {side(part.pool)}"] if part.pool > 1 else []
            layers = [f"{side(3)} convolution to {width} channels" for width in part.widths]
            return [*pool, *layers, f"linear to {classes} classes and a confidence"]
        case FinalHead():
            expand = [f"1x1 convolution to {part.expand} channels"] if part.expand else []
            mix = [f"mix to {part.mix} channels"] if part.mix else []
            return [*expand, "mean over the map", *mix, f"linear to {classes} classes"]


def card(story: Story, row: Network) -> str:
    """Return the card of a network: its parts drawn with their MACs, and room for the selected solution."""
    architecture, number = story.archive.problem.coder.decode(row.genome), story.numbers[row.evaluation.trial]
    drawn = ""
    for piece in pieces(architecture):
        lines = "".join(f"<li>{line}</li>" for line in piece.does)
        made = f"<p>map {extent(piece.made[:2])} x {piece.made[2]}</p>" if piece.made else ""
        part = f'<p class="bar" style="--part:{100 * piece.macs / row.worst_macs:.2f}%">{piece.macs:,} MACs, '
        leave = "" if piece.exit is None else f"<p>answer here: {row.exit_costs[piece.exit]:,} MACs</p>"
        kind = "" if piece.exit is None else ' class="exit"'
        part += f"{share(piece.macs, row.worst_macs)}</p>{leave}"
        drawn += f"<li{kind}><h4>{piece.title}</h4>{made}<ul>{lines}</ul>{part}</li>"
    *size, channels = architecture.input_shape
    said = (
        f"{row.params:,} parameters; {row.worst_macs:,} MACs if all exits are passed; activations of "
        f"{row.peak_bytes:,} bytes in float32; input {extent((size[0], size[1]))} x {channels}; confidence "
        f"{'softmax at a fitted temperature' if row.temperatures else 'learned'}."
    )
    name = f"title-{number}"
    return (
        f'<article class="card n{number % 6}" tabindex="-1" aria-labelledby="{name}"><h3 id="{name}">'
        f"Network {letter(number)}</h3><p>{said}</p><h4>Parts in the order in which they run</h4>"
        f'<ol class="flow">{drawn}</ol><div class="solution"></div></article>'
    )


# What depends on the selected solution


def selected(story: Story) -> dict[str, Any]:
    """Return the JSON object that the page's script reads: pictures, classes, and for each solution its figures."""
    about, plot, kept = story.archive.problem.about, front_plot(story), story.examples
    names = list(about["class_names"]) or [str(number) for number in range(about["classes"])]
    found: dict[str, Any] = {"classes": names, "matrix": len(names) <= MATRIX, "rows": []}
    used: dict[int, int] = {}  # which of the stored images, and its place on the sheet
    for row in story.rows:
        shown = _figures(story, row, plot)
        if kept is not None and row.evaluation.on_test is not None:
            shown["confusion"] = _confusion(row, kept, len(names))
            shown["examples"] = _leaving(row, kept, used, most_pictures(about["image_shape"]))
        found["rows"].append(shown)
    if kept is not None and used:
        values = about["values"]
        found["sheet"] = sheet(pictures(kept.images[list(used)], values["least"], values["most"]))
    return found


def _figures(story: Story, row: Network, plot: Plot) -> dict[str, Any]:
    test, (low, high) = row.test, row.test.metric_interval95
    exits = zip(row.exits, row.thresholds, row.exit_costs, row.exit_counts, test.exit_counts, strict=True)
    return {
        "k": row.solution,
        "network": story.numbers[row.evaluation.trial],
        "test_at": plot.at(test.average_macs, test.metric),
        "figures": {
            story.accuracy: f"{row.metric:.1%}",
            "average MACs": f"{row.average_macs:,.0f}",
            f"test {story.accuracy} (95%)": f"{test.metric:.1%} ({low * 100:.1f} to {high * 100:.1f})",
            "test average MACs": f"{test.average_macs:,.0f}",
            "limits on the test split": "kept" if test.kept else "missed",
        },
        "exits": [
            {
                "stage": stage,
                "rule": _rule(threshold),
                "cost": f"{cost:,}",
                "share": share(count, row.samples),
                "test_share": share(on_test, test.samples),
                "width": round(100 * count / row.samples, 1),
            }
            for stage, threshold, cost, count, on_test in exits
        ],
    }


def _confusion(row: Network, kept: Examples, classes: int) -> list[list[list[int]]]:
    """Return for each exit [right class, answered class, samples], the most frequent first; no zeros."""
    assert row.evaluation.on_test is not None, "the caller has looked"
    found = []
    for table in confusion_by_exit(row.evaluation.on_test, row.thresholds, kept.labels, classes):
        cells = [[right, answer, int(table[right, answer])] for right, answer in np.argwhere(table).tolist()]
        cells.sort(key=lambda cell: -cell[2])
        found.append(cells if classes <= MATRIX else [cell for cell in cells if cell[0] != cell[1]][:MISTAKES])
    return found


def _leaving(row: Network, kept: Examples, used: dict[int, int], most: int) -> list[list[list[int]]]:
    """Return for each exit [place on the sheet, right class, answered class] of images that leave there.

    Images that are `used` already come first; at most `most` are used in all.
    """
    assert row.evaluation.on_test is not None, "the caller has looked"
    tables, found = row.evaluation.on_test, []
    leaves = apply_thresholds(tables.confidence, row.thresholds)[kept.rows]
    for place in range(len(row.exits)):
        shown = []
        for image in sorted(np.flatnonzero(leaves == place).tolist(), key=lambda image: image not in used)[:A_EXIT]:
            if image in used or len(used) < most:
                at, sample = used.setdefault(image, len(used)), kept.rows[image]
                shown.append([at, int(kept.labels[sample]), int(tables.predicted[sample, place])])
        found.append(shown)
    return found


def _rule(threshold: float) -> str:
    if threshold <= ALWAYS:
        return "Takes all that arrive"
    return "Switched off" if threshold > 1 else f"Takes a confidence of at least {threshold:.3f}"
