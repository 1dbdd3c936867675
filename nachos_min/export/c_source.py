"""A trained network as one C99 source and header: early stopping, no dynamic memory, nothing but libm.

`c_check.py` compiles what is written here and compares it with the engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.thresholds import ALWAYS, NEVER
from nachos_min.eenn.trained import Trained
from nachos_min.errors import InputError
from nachos_min.export.c_code import Code, called, planned, source_of
from nachos_min.export.c_layers import float_code
from nachos_min.export.folded import folded
from nachos_min.files import write_file

FILES = ("network.h", "network.c", "example.c", "Makefile")
_ESCAPED = {ord(c): f"\\{c}" for c in '"\\?'}


@dataclass(frozen=True)
class CFiles:
    """What was written: `constants` in flash, `buffers` in RAM, both in bytes and without the code."""

    folder: Path
    constants: int
    buffers: int


def write_c(trained: Trained, folder: str | Path) -> CFiles:
    """Return what was written to `folder`: network.c, network.h, example.c and a Makefile.

    Args:
        trained: the network, with thresholds and scaling.
        folder: is made if it is not there; files of these names in it are replaced.

    Raises:
        InputError: if the folder cannot be made or written to.
    """
    return write_code(trained, float_code(trained, folded(trained)), folder)


def write_code(trained: Trained, code: Code, folder: str | Path) -> CFiles:
    """Return what was written to `folder` for a network whose layers `code` computes; else as `write_c`."""
    exits = len(trained.thresholds)
    outputs = [max(i for i, step in enumerate(code.steps) if step.exit == e) for e in range(1, exits + 1)]
    places, arena = planned(code.steps, outputs)
    logits = 4 * max(code.steps[each].count for each in outputs)
    made = CFiles(Path(folder), code.constant_bytes, arena + logits)
    source = _source(trained, code, outputs, places, arena)
    texts = (_header(trained, code, made), source, source_of("example.c"), source_of("example.mk"))
    try:
        made.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be written to: {error.strerror or error}") from None
    for name, text in zip(FILES, texts, strict=True):
        write_file(made.folder / name, text.encode())
    return made


def _header(trained: Trained, code: Code, made: CFiles) -> str:
    """Return the header: what the network is, how large, and how it is called."""
    seen, architecture = trained.seen, trained.architecture
    height, width, channels = seen.shape
    kind = "uint8_t" if seen.dtype == "uint8" else "float"
    rows = enumerate(zip(architecture.exit_stages, trained.costs.exit_costs, trained.thresholds, strict=True))
    words = {ALWAYS: "always", NEVER: "never"}
    exits = "\n".join(
        f"   {i:4}  {stage:5}  {macs:10,}  {words.get(t, f'{t:.6f}'):>9}" for i, (stage, macs, t) in rows
    )
    span = f"{seen.least:g} to {seen.most:g} in training"
    return f"""\
/* An early-exit network as C99, written by nachos_min. {_plain(trained.name)}

   Image: {kind} [{height}][{width}][{channels}] (height, width, channels), unscaled: {span}.
   Arithmetic: {code.arithmetic}.
   It leaves at the first exit whose cumulative confidence ({trained.confidence.name}) reaches the threshold:

   exit  stage  MACs there  threshold
{exits}

   Flash: {made.constants:,} bytes of constants, and the code. RAM: {made.buffers:,} bytes of static buffers.
   `make size` says what a compiler makes of it. No dynamic memory, no recursion; one call at a time.

       int exit, label = predict(image, &exit); */

#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

enum {{
    NETWORK_HEIGHT = {height},
    NETWORK_WIDTH = {width},
    NETWORK_CHANNELS = {channels},
    NETWORK_CLASSES = {architecture.classes},
    NETWORK_EXITS = {len(trained.thresholds)}
}};

typedef {kind} network_value;

typedef struct {{
    int label;           /* class, from 0 */
    int exit;            /* that answered, from 0 */
    double confidence;   /* cumulative, at that exit */
    const float *logits; /* of all classes, until the next call */
}} network_answer;

extern const double network_thresholds[NETWORK_EXITS];
extern const char *const network_classes[NETWORK_CLASSES];

/* Return the class of an image, from 0, and write the exit that answered, from 0. */
int predict(const network_value *image, int *exit);

/* Write all about an image, under other thresholds if they are not NULL; the last exit takes what is left. */
void predict_full(const network_value *image, const double *thresholds, network_answer *answer);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _source(trained: Trained, code: Code, outputs: Sequence[int], places: Sequence[int], arena: int) -> str:
    """Return the source: constants, functions of layers, and the network in order of execution."""
    body, exit_ = list[str](), 0
    buffers = [f"{_pointer(code, each, places)}" for each in range(len(code.steps))]
    for index, step in enumerate(code.steps):
        if step.statement:
            reads = {f"x{i}": buffers[each] for i, each in enumerate(step.inputs)}
            body.append(step.statement.format(y=buffers[index], **reads))
        if index in outputs:
            body += [*_policy(trained.confidence, exit_, len(outputs)), ""]
            exit_ += 1
    statements = "\n".join(f"    {line}".rstrip() for line in body[:-1])
    functions = called([source_of("policy.c"), *code.functions], statements)
    declared = [part for part in functions if part.lstrip().startswith("typedef")]
    names = ",\n    ".join(f'"{_escaped(name)}"' for name in trained.seen.class_names)
    thresholds = ", ".join(repr(float(each)) for each in trained.thresholds)
    count = max(code.steps[each].count for each in outputs)
    running = "rest = 1" if trained.confidence.temperatures is None else "c = 0"
    early = f"    double {running};\n" if len(outputs) > 1 else ""
    parts = [
        '/* Written by nachos_min; see network.h. */\n#include "network.h"',
        "#include <math.h>\n#include <stddef.h>",
        f"const double network_thresholds[NETWORK_EXITS] = {{{thresholds}}};",
        f"const char *const network_classes[NETWORK_CLASSES] = {{\n    {names}}};",
        *declared,
        *code.constants,
        f"static float memory[{max(arena // 4, 1)}]; /* all buffers; those that are never alive at once overlap */",
        f"static float logits[{count}];",
        *(part for part in functions if part not in declared),
        f"""\
void predict_full(const network_value *image, const double *thresholds, network_answer *answer)
{{
{early}    if (thresholds == NULL) thresholds = network_thresholds;
{statements}
}}""",
        """\
int predict(const network_value *image, int *exit)
{
    network_answer answer;
    predict_full(image, NULL, &answer);
    *exit = answer.exit;
    return answer.label;
}""",
    ]
    return "\n\n".join(parts) + "\n"


def _pointer(code: Code, index: int, places: Sequence[int]) -> str:
    """Return the C expression of a step's buffer."""
    if places[index] < 0:
        return "logits"
    if code.steps[index].type == "float":
        return f"memory + {places[index] // 4}"
    return f"({code.steps[index].type} *)memory + {places[index]}"


def _policy(confidence: Confidence, exit_: int, exits: int) -> list[str]:
    """Return the statements behind the head of an exit: leave or go on."""
    if exit_ == exits - 1:
        return [f"leaves(answer, {exit_}, 1, 0);"]
    if confidence.temperatures is None:
        return [
            "rest *= 1 - learned(logits);",
            f"if (leaves(answer, {exit_}, 1 - rest, thresholds[{exit_}])) return;",
        ]
    return [
        f"c = fmax(c, softmax(logits, {float(confidence.temperatures[exit_])!r}));",
        f"if (leaves(answer, {exit_}, c, thresholds[{exit_}])) return;",
    ]


def _escaped(name: str) -> str:
    """Return a class name as it stands between the quotes of a C string."""
    quoted = name.encode(errors="backslashreplace").decode().translate(_ESCAPED).encode()
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in quoted)


def _plain(name: str) -> str:
    """Return a name that cannot end a C comment."""
    return "".join(c if c.isprintable() else "_" for c in name).replace("*/", "* /")
