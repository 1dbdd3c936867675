"""Hostile ONNX files."""

from pathlib import Path
from random import Random
from typing import Any

from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import FLOATS, damaged, name, number
from hostile.lines import file_name, special
from hostile.valid import valid
from macs.onnx_cases import helper, onnx


def target(rng: Random, folder: Path, content: bytes, expected: str = EITHER) -> Case:
    path = file_name(rng, ".onnx", "net")
    (folder / path).write_bytes(content)
    options = [
        [],
        [],
        [],
        ["--json"],
        ["--layers"],
        ["--convention", "onnx-tool"],
        ["--explain", "thop"],
        ["--input", "1,8,8,1"],
    ]
    return Case(["macs", path, *rng.choice(options)], expected)


@hostile("onnx", share=3)
def flipped(rng: Random, folder: Path) -> Case:
    return target(rng, folder, damaged(rng, valid("gated.onnx").read_bytes()))


def messages(message: Any) -> list[Any]:
    """Return a message with all messages inside it."""
    found = [message]
    for field, content in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in content if hasattr(content, "extend") else [content]:
                found += messages(inner)
    return found


def change(rng: Random, made: Any) -> None:
    """Change one field of one message, by kind: its value, how often it stands there, or whether it does."""
    message = rng.choice(messages(made))
    field = rng.choice(message.DESCRIPTOR.fields)
    there = getattr(message, field.name)
    repeated, is_message = hasattr(there, "extend"), field.type == field.TYPE_MESSAGE
    if repeated and len(there) and rng.random() < 0.6:
        place = rng.randrange(len(there))
        match rng.randrange(4):
            case 0:
                del there[place]
                return
            case 1:
                there.extend([there[place]] * rng.choice((1, 3, 1000)))
                return
            case 2 if is_message:
                there[place].CopyFrom(rng.choice(there))
                return
            case _:
                pass
    if is_message:
        message.ClearField(field.name)
        return
    kinds: dict[int, Any] = {field.TYPE_STRING: name(rng), field.TYPE_BYTES: name(rng).encode("utf-8", "replace")}
    kinds |= {field.TYPE_FLOAT: rng.choice(FLOATS), field.TYPE_ENUM: rng.randrange(25)}
    value = kinds.get(field.type, number(rng))
    if isinstance(value, int):
        wide = 31 if field.type in (field.TYPE_INT32, field.TYPE_ENUM) else 63
        value = (value + 2**wide) % 2 ** (wide + 1) - 2**wide if field.type != field.TYPE_UINT64 else value % 2**64
    try:
        if repeated:
            kept = list(there)
            kept[: rng.choice((0, 1, len(kept)))] = [value] * rng.choice((0, 1, 1, 1, 5, 10_000))
            message.ClearField(field.name)
            there.extend(kept)
        else:
            setattr(message, field.name, value)
    except (ValueError, TypeError):  # a text with half a pair, a float too large
        message.ClearField(field.name)


@hostile("onnx", share=5)
def fields(rng: Random, folder: Path) -> Case:
    """One to four fields of any message of the file changed."""
    made = onnx.ModelProto.FromString(valid("gated.onnx").read_bytes())
    for _ in range(rng.choice((1, 1, 2, 4))):
        change(rng, made)
    return target(rng, folder, made.SerializeToString())


@hostile("onnx", share=3)
def amplified(rng: Random, folder: Path) -> Case:
    """Files of some hundred kilobytes that would take long: what is read for each of many calls."""
    many, times = rng.choice((10, 1000, 20_000)), rng.choice((1, 300, 5000))
    tensor = onnx.numpy_helper.from_array
    value = helper.make_tensor_value_info("x", 1, [4])
    functions, nodes = [], []
    what = rng.randrange(7)
    inside = [helper.make_node("Relu", ["a"], ["b"])]
    if what == 0:  # attributes of a function
        made = helper.make_function(
            "own", "f", ["a"], ["b"], inside, [helper.make_opsetid("", 17)], [f"k{each}" for each in range(many)]
        )
        functions, nodes = (
            [made],
            [helper.make_node("f", ["x"], [f"y{each}"], domain="own") for each in range(times)],
        )
    elif what == 1:  # inputs and outputs of a function
        names = [f"a{each}" for each in range(many)]
        made = helper.make_function(
            "own", "f", names, [f"b{each}" for each in range(many)], [], [helper.make_opsetid("", 17)]
        )
        functions, nodes = (
            [made],
            [helper.make_node("f", ["x"], [f"y{each}"], domain="own") for each in range(times)],
        )
    elif what == 2:  # functions that call each other
        depth = rng.choice((5, 30, 300))
        for each in range(depth):
            calls = [
                helper.make_node(f"f{each + 1}", ["a"], [f"b{k}"], domain="own")
                for k in range(rng.choice((1, 2, 8)))
            ]
            last = [helper.make_node("Relu", ["a"], ["b0"])]
            functions.append(
                helper.make_function(
                    "own",
                    f"f{each}",
                    ["a"],
                    ["b0"],
                    calls if each + 1 < depth else last,
                    [helper.make_opsetid("", 17)],
                )
            )
        if rng.random() < 0.3:
            functions[-1].node[0].op_type, functions[-1].node[0].domain = "f0", "own"
        nodes = [helper.make_node("f0", ["x"], [f"y{each}"], domain="own") for each in range(min(times, 300))]
    elif what == 3:  # attributes of a node
        nodes = [
            helper.make_node("Relu", ["x"], [f"y{each}"], **{f"k{k}": 1 for k in range(min(many, 1000))})
            for each in range(min(times, 50))
        ]
    elif what == 4:  # constants of a branch
        constants = [tensor(_zeros(), f"c{each}") for each in range(min(many, 5000))]
        then = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["t"])],
            "then",
            [],
            [helper.make_empty_tensor_value_info("t")],
            constants,
        )
        made = helper.make_function(
            "own",
            "f",
            ["x"],
            ["b"],
            [helper.make_node("If", ["x"], ["b"], then_branch=then, else_branch=then)],
            [helper.make_opsetid("", 17)],
        )
        functions, nodes = (
            [made],
            [helper.make_node("f", ["x"], [f"y{each}"], domain="own") for each in range(times)],
        )
    elif what == 5:  # long names, many inputs
        nodes = [helper.make_node("Concat", ["x"] * many, [f"y{each}"], axis=0) for each in range(min(times, 20))]
        nodes += [helper.make_node(rng.choice(("Relu", "Nothing", name(rng))), ["x" * 10**6], ["y"])]
    else:  # shapes that grow
        nodes, last = [], "x"
        for each in range(min(times, 300)):
            nodes.append(
                helper.make_node(
                    rng.choice(("Concat", "Add", "Einsum")),
                    [last, last],
                    [f"y{each}"],
                    **rng.choice(({"axis": 0}, {"equation": "i,j->ij"})),
                )
            )
            last = f"y{each}"
    graph = helper.make_graph(
        nodes, "g", [value], [helper.make_tensor_value_info(rng.choice(("y", "y0")), 1, None)]
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return target(
        rng, folder, helper.make_model(graph, opset_imports=sets, functions=functions).SerializeToString()
    )


def _zeros() -> Any:
    import numpy as np

    return np.zeros(1, np.float32)


@hostile("onnx")
def no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "net.onnx", valid("own.npz"))
    return Case(["macs", "net.onnx"], REFUSED)
