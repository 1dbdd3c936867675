"""The rules of this house that a program can check. A failure lists every place that breaks the rule.

What imports what is not here: import-linter checks it (`[tool.importlinter]` in pyproject.toml).
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("nachos_min/**/*.py"), *ROOT.glob("kernels/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
PYTHON = sorted([*SOURCES, *TESTS, *ROOT.glob("bench/**/*.py")])
KERNELS = [path for path in SOURCES if "kernels" in path.relative_to(ROOT).parts]
READMES = [path for path in ROOT.glob("**/README.md") if not {".venv", ".pytest_cache"} & set(path.parts)]
ROOMS = {"bench", "hostile", "kernels", "tests"} | {path.stem for path in ROOT.glob("nachos_min/*")}
TEXTS = {path: path.read_text(encoding="utf-8") for path in PYTHON}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
NODES = {path: list(ast.walk(TREES[path])) for path in SOURCES}
CLASSES = [node for path in SOURCES for node in NODES[path] if isinstance(node, ast.ClassDef)]
BASES = {node.name: {ast.unparse(base) for base in node.bases} for node in CLASSES}
INPUT_ERRORS = {"InputError"}
while more := {name for name, bases in BASES.items() if bases & INPUT_ERRORS} - INPUT_ERRORS:
    INPUT_ERRORS |= more

Function = ast.FunctionDef | ast.AsyncFunctionDef
Check = Callable[[Path], Iterator[str | int]]
RULES: dict[str, tuple[list[Path], Check]] = {}


def rule(paths: list[Path]) -> Callable[[Check], None]:
    """Register a generator of what breaks a rule in a file, by line number or name, for these files."""
    return lambda check: RULES.update({check.__name__: (paths, check)})


def public_definitions(path: Path) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a file, then the public methods of those classes, with dotted names."""
    for node in TREES[path].body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, Function) and (member.name == "__init__" or not member.name.startswith("_")):
                    yield f"{node.name}.{member.name}", member


def section(node: Function | ast.ClassDef, heading: str) -> list[str]:
    """Names in a docstring's section such as Args; `a, b: text` documents both a and b."""
    lines = (ast.get_docstring(node) or "").splitlines()
    if f"{heading}:" not in lines:
        return []
    indented = takewhile(lambda line: not line or line.startswith(" "), lines[lines.index(f"{heading}:") + 1 :])
    entry = re.compile(r"    ((?:\*{0,2}\w+, )*\*{0,2}\w+)(?: \([^)]*\))?:(?: |$)")
    starts = [start for line in indented if (start := entry.match(line))]
    return [name.strip("* ") for start in starts for name in start[1].split(",")]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and outermost package of every import of a file."""
    for node in NODES[path]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            yield from ((node.lineno, module.split(".")[0]) for module in modules)


@rule(SOURCES)
def modules_and_public_names_have_a_docstring(path: Path) -> Iterator[str]:
    if not ast.get_docstring(TREES[path]):
        yield "the file"
    for name, node in public_definitions(path):
        if not ast.get_docstring(node) and "." not in name:
            yield name


@rule(SOURCES)
def documented_parameters_are_the_signature(path: Path) -> Iterator[str]:
    for name, node in public_definitions(path):
        if isinstance(node, Function) and (documented := section(node, "Args")):
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            if sorted(documented) != sorted(each.arg for each in named if each and each.arg not in ("self", "cls")):
                yield name


@rule(SOURCES)
def documented_attributes_exist(path: Path) -> Iterator[str]:
    for name, node in public_definitions(path):
        code = "\n".join(map(ast.unparse, node.body[1:]))  # without the docstring
        attributes = section(node, "Attributes")
        yield from (f"{name}.{each}" for each in attributes if not re.search(rf"\b{each}(?=[:(]| =)", code))


@rule(PYTHON)
def a_file_has_at_most_600_lines_and_is_named_after_its_idea(path: Path) -> Iterator[str]:
    drawers = re.compile("utils?|helpers?|common|misc")
    if TEXTS[path].count("\n") > 600 or any(map(drawers.fullmatch, path.relative_to(ROOT).with_suffix("").parts)):
        yield path.name


@rule([path for path in SOURCES if path.name == "__init__.py" and path.parent.name != "nachos_min"])
def package_files_only_reexport(path: Path) -> Iterator[int]:
    for node in TREES[path].body[1:]:
        exported = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (exported or isinstance(node, ast.Import | ast.ImportFrom)):
            yield node.lineno


@rule([ROOT / "nachos_min" / "__init__.py"])
def the_top_package_loads_no_room(path: Path) -> Iterator[int]:
    """The command line's help depends on it."""
    for node in TREES[path].body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nachos_min"):
            yield node.lineno


@rule([path for path in SOURCES if path.name != "_jit.py"])
def numbas_decorators_are_in_the_jit_file_alone_and_numba_in_kernels_alone(path: Path) -> Iterator[int]:
    compilers = re.compile("njit|jit|vectorize|guvectorize|stencil|cfunc")
    for node in NODES[path]:
        if isinstance(node, ast.Attribute | ast.Name):
            names = [node.attr if isinstance(node, ast.Attribute) else node.id]
        elif isinstance(node, ast.ImportFrom) and node.module == "numba":
            names = [each.name for each in node.names]
        else:
            continue
        if any(map(compilers.fullmatch, names)):
            yield node.lineno
    yield from (line for line, package in imported(path) if package == "numba" and path not in KERNELS)


@rule(KERNELS)
def kernels_hold_no_class_and_no_randomness_and_import_numpy_and_numba_only(path: Path) -> Iterator[int]:
    listener = path.name == "_jit.py"  # Numba tells of its compilations to objects of a class only
    for node in NODES[path]:
        if isinstance(node, ast.AsyncFunctionDef | ast.Global) or (isinstance(node, ast.ClassDef) and not listener):
            yield node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("np.random"):
            yield node.lineno
    allowed = {"numpy", "numba", "nachos_kernels"} | sys.stdlib_module_names
    yield from (line for line, package in imported(path) if package not in allowed)


@rule([path for path in KERNELS if path.name != "_jit.py"])
def every_kernel_is_named_in_a_test(path: Path) -> Iterator[str]:
    tests = "".join(TEXTS[test] for test in TESTS if test.parent.name == "kernels")
    yield from (name for name, _ in public_definitions(path) if not re.search(rf"\b{name}\b", tests))


@rule([path for path in SOURCES if "conventions" not in path.parts])
def counts_are_called_macs(path: Path) -> Iterator[str]:
    """Other tools' names for their counts appear where their conventions are explained, nowhere else."""
    text = re.sub(r"\b(ptflops|calflops(-flops)?)\b", "", TEXTS[path])  # names of tools
    yield from re.findall("flops?", text, re.IGNORECASE)


@rule(SOURCES)
def randomness_and_attributes_are_explicit(path: Path) -> Iterator[int]:
    """A generator is given a seed, and a class says what it has."""
    for node in NODES[path]:
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "hasattr" or (called.endswith("default_rng") and not node.args):
                yield node.lineno


@rule(SOURCES)
def a_dataclass_without_behaviour_is_frozen(path: Path) -> Iterator[str]:
    for node in NODES[path]:
        if isinstance(node, ast.ClassDef) and not any(isinstance(member, Function) for member in node.body):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if any(each.startswith("dataclass") and "frozen=True" not in each for each in decorators):
                yield node.name


@rule([path for path in PYTHON if path.name != Path(__file__).name])
def an_exception_from_the_tools_has_its_reason_beside_it(path: Path) -> Iterator[int]:
    mark = re.compile(r"#\s*(?:type:\s*ignore|noqa|pragma:|ruff:|mypy:)(?:\[[\w, -]+\]|[:,\s]*[A-Z]+\d+)*(.*)")
    for number, line in enumerate(TEXTS[path].splitlines(), 1):
        if (found := mark.search(line)) and len(found[1].strip(" #-")) <= 8:
            yield number


@rule(SOURCES)
def a_message_is_one_line_with_the_value_that_broke_the_rule(path: Path) -> Iterator[int]:
    for node in NODES[path]:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            message, text = node.exc.args[0], ast.unparse(node.exc.args[0])
            if ast.unparse(node.exc.func) in INPUT_ERRORS and isinstance(message, ast.JoinedStr | ast.Constant):
                valued = isinstance(message, ast.JoinedStr) or re.search(r"['\"].*['\"].*['\"]", text)
                if "\\n" in text or not valued:
                    yield node.lineno


@rule(READMES)
def a_readme_sends_readers_to_what_exists(readme: Path) -> Iterator[str]:
    """Places such as `eenn/losses.py` `cost_loss`: the file exists and defines the name."""
    places = re.findall(r"`([\w/]+/\w+\.py)`(?: `(\w+)`)?", readme.read_text(encoding="utf-8"))
    for file, name in places:
        found = [ROOT / room / file for room in ("", "nachos_min", "kernels") if (ROOT / room / file).is_file()]
        nodes = TREES[found[0]].body if found else []
        defined = {node.name for node in nodes if isinstance(node, Function | ast.ClassDef)}
        if not found or (name and name not in defined):
            yield f"{file} {name}"


@rule([*SOURCES, *READMES])
def an_extra_that_is_named_exists(path: Path) -> Iterator[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    yield from set(re.findall(r"nachos_min\[(\w+)\]", path.read_text(encoding="utf-8"))) - set(extras)


@pytest.mark.parametrize("name", RULES)
def test_every_file_keeps_the_rule(name: str) -> None:
    paths, check = RULES[name]
    broken = [f"{path.relative_to(ROOT).as_posix()}: {place}" for path in paths for place in check(path)]
    assert not broken, "\n".join([name, *broken])


def test_every_error_class_is_tested() -> None:
    tests = "".join(TEXTS[path] for path in TESTS)
    assert not {name for name in BASES if name.endswith("Error") and not re.search(rf"\b{name}\b", tests)}


def test_tests_mirror_the_rooms_under_distinct_names() -> None:
    tests = [path for path in TESTS if path.name.startswith("test_")]
    assert {path.parent.name for path in tests} <= ROOMS
    assert len({path.name for path in tests}) == len(tests)
