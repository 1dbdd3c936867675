"""The rules of this house that a program can check, one test a rule.

What imports what is not here: import-linter checks it (`[tool.importlinter]` in pyproject.toml).
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("nachos_min/**/*.py"), *ROOT.glob("kernels/**/*.py")])
PYTHON = sorted([*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/**/*.py")])
KERNELS = [path for path in SOURCES if "kernels" in path.relative_to(ROOT).parts]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PYTHON}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
each_file = pytest.mark.parametrize("path", PYTHON, ids=name_of)
each_kernel_file = pytest.mark.parametrize("path", KERNELS, ids=name_of)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def public_definitions(path: Path) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a file, then the public methods of those classes, with dotted names."""
    for node in TREES[path].body:
        if isinstance(node, Function | ast.ClassDef) and is_public(node.name):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, Function) and is_public(member.name.replace("__init__", "init")):
                        yield f"{node.name}.{member.name}", member


def section(docstring: str, heading: str) -> dict[str, str]:
    """Entries of a docstring's section such as Args: name -> text; `a, b: text` documents both a and b."""
    lines = docstring.splitlines()
    if f"{heading}:" not in lines:
        return {}
    indented = takewhile(lambda line: not line or line.startswith(" "), lines[lines.index(f"{heading}:") + 1 :])
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in indented:
        start = re.match(r"    ((?:\*{0,2}\w+, )*\*{0,2}\w+)(?: \([^)]*\))?:(?: |$)(.*)", line)
        if start:
            names = [name.strip("* ") for name in start[1].split(",")]
            entries.update(dict.fromkeys(names, start[2]))
        elif line.strip():
            entries.update({name: f"{entries[name]} {line.strip()}" for name in names})
    return entries


def parameters(function: Function) -> list[str]:
    """Parameter names in order, without self and cls."""
    given = function.args
    several = [given.vararg] if given.vararg else []
    rest = [given.kwarg] if given.kwarg else []
    names = [each.arg for each in [*given.posonlyargs, *given.args, *several, *given.kwonlyargs, *rest]]
    return [name for name in names if name not in ("self", "cls")]


@each_source
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(TREES[path]), "the file must start with a docstring"


@each_source
def test_public_names_are_documented(path: Path) -> None:
    bare = [name for name, node in public_definitions(path) if not ast.get_docstring(node) and "." not in name]
    assert not bare, "public functions and classes must have a docstring"


@each_source
def test_documented_parameters_are_the_signature(path: Path) -> None:
    for name, node in public_definitions(path):
        if isinstance(node, Function):
            documented = list(section(ast.get_docstring(node) or "", "Args"))
            assert not documented or sorted(documented) == sorted(parameters(node)), f"Args of {name}"


@each_source
def test_documented_attributes_exist(path: Path) -> None:
    for name, node in public_definitions(path):
        if isinstance(node, ast.ClassDef):
            documented = section(ast.get_docstring(node) or "", "Attributes")
            text = ast.unparse(node) if documented else ""
            for attribute in documented:
                assert re.search(rf"\b{attribute}\b(?=[:(]| =|: )", text), f"{name} documents {attribute}"


@each_file
def test_a_file_is_short_and_named_after_its_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, "a file has at most 600 lines"
    drawers = re.compile("utils?|helpers?|common|misc")
    assert not [part for part in path.relative_to(ROOT).with_suffix("").parts if drawers.fullmatch(part)]


def test_package_files_only_reexport() -> None:
    allowed = ast.Import | ast.ImportFrom
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent.name != "nachos_min":
            for node in TREES[path].body[1:]:
                exported = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
                assert isinstance(node, allowed) or exported, f"{name_of(path)} line {node.lineno}"


def test_the_top_package_is_lazy() -> None:
    """`import nachos_min` must not load a room: the command line's help depends on it."""
    for node in TREES[ROOT / "nachos_min" / "__init__.py"].body:
        assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nachos_min"))


@each_source
def test_one_compile_policy(path: Path) -> None:
    """Numba's decorators are used in `_jit.py` alone, and numba is imported by kernels alone."""
    if path.name == "_jit.py":
        return
    compilers = re.compile("njit|jit|vectorize|guvectorize|stencil|cfunc")
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            assert not compilers.fullmatch(name), f"line {node.lineno}: use the decorator `kernel`"
        if isinstance(node, ast.ImportFrom) and node.module == "numba":
            assert not [name for name in node.names if compilers.fullmatch(name.name)], f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom) and path not in KERNELS:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            assert not [module for module in modules if module.split(".")[0] == "numba"], f"line {node.lineno}"


@each_kernel_file
def test_kernels_hold_no_class_and_no_randomness(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        assert not isinstance(node, ast.ClassDef | ast.AsyncFunctionDef | ast.Global), f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert not ast.unparse(node).startswith("np.random"), f"line {node.lineno}"


@each_kernel_file
def test_kernels_import_numpy_and_numba_only(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            for module in modules:
                root = module.split(".")[0]
                allowed = {"numpy", "numba", "nachos_kernels"} | sys.stdlib_module_names
                assert root in allowed, f"imports {module}"


@each_kernel_file
def test_every_kernel_is_tested(path: Path) -> None:
    tests = "".join(test.read_text(encoding="utf-8") for test in (ROOT / "tests" / "kernels").glob("*.py"))
    for name, node in public_definitions(path):
        assert path.name == "_jit.py" or re.search(rf"\b{node.name}\b", tests), f"{name} is in no test"


@each_source
def test_counts_are_called_macs(path: Path) -> None:
    """Other tools' names for their counts appear where their conventions are explained, nowhere else."""
    if "conventions" not in path.parts:
        text = re.sub(r"\b(ptflops|calflops(-flops)?)\b", "", path.read_text(encoding="utf-8"))  # names of tools
        assert not re.search("flops?", text, re.IGNORECASE)


@each_source
def test_randomness_and_attributes_are_explicit(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "hasattr", f"line {node.lineno}"
            assert node.args or not called.endswith("default_rng"), f"line {node.lineno}: a seed must be passed"


@each_source
def test_data_is_frozen(path: Path) -> None:
    """A dataclass without behaviour of its own is data, and data does not change."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef) and not any(isinstance(member, Function) for member in node.body):
            for decorator in node.decorator_list:
                if ast.unparse(decorator).startswith("dataclass"):
                    assert "frozen=True" in ast.unparse(decorator), node.name


@each_file
def test_an_exception_from_the_tools_has_its_reason_beside_it(path: Path) -> None:
    mark = re.compile(r"#\s*(?:type:\s*ignore|noqa|pragma:|ruff:|mypy:)(?:\[[\w, -]+\]|[:\s]*[A-Z]+\d+)*(.*)")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if (found := mark.search(line)) and path.name != Path(__file__).name:
            assert len(found[1].strip(" #-")) > 8, f"line {number} needs a reason: {line.strip()}"


@cache
def input_errors() -> set[str]:
    """Names of InputError and of every class derived from it, directly or not."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ClassDef)
    }
    found = {"InputError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def messages(path: Path) -> Iterator[tuple[int, ast.expr]]:
    """Line and message of every InputError raised in a file with a message written in place."""
    names = input_errors()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            message = node.exc.args[0]
            if ast.unparse(node.exc.func) in names and isinstance(message, ast.JoinedStr | ast.Constant):
                yield node.lineno, message


@each_source
def test_a_message_is_one_line_with_the_value(path: Path) -> None:
    for line, message in messages(path):
        text = ast.unparse(message)
        assert "\\n" not in text, f"line {line}: a message is one line"
        assert isinstance(message, ast.JoinedStr) or re.search(r"['\"].*['\"].*['\"]", text), (
            f"line {line}: a message gives the value that broke the rule"
        )


def test_every_error_class_is_tested() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    defined = {
        node.name
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert not {name for name in defined if not re.search(rf"\b{name}\b", tests)}


ROOMS = {"autograd", "cli", "data", "data_files", "eenn", "kernels", "macs", "nas", "nn", "store", "report"}


def test_tests_mirror_the_rooms() -> None:
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    assert {path.parent.name for path in tests} <= ROOMS | {"tests"}
    names = [path.name for path in tests]
    assert len(names) == len(set(names)), "test files have distinct names"


READMES = [path for path in ROOT.glob("**/README.md") if not {".venv", ".pytest_cache"} & set(path.parts)]


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_a_readme_sends_readers_to_what_exists(readme: Path) -> None:
    """Places such as `eenn/losses.py` `cost_loss`: the file exists and defines the name."""
    places = re.findall(r"`([\w/]+/\w+\.py)`(?: `(\w+)`)?", readme.read_text(encoding="utf-8"))
    for file, name in places:
        found = [ROOT / room / file for room in ("", "nachos_min", "kernels") if (ROOT / room / file).is_file()]
        assert found, f"{readme} names {file}, which does not exist"
        defined = {node.name for node in TREES[found[0]].body if isinstance(node, Function | ast.ClassDef)}
        assert not name or name in defined, f"{readme} names {name} in {file}"
