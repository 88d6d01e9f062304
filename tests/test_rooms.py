"""The structure of the package, read from its source: imports between rooms, sizes."""

import ast
import re
from pathlib import Path

import pytest

import sklearn_mfgd

PACKAGE = Path(sklearn_mfgd.__file__).parent
MAP = Path(__file__).parents[1] / "doc" / "contributing.rst"

# What each room may import. The face, which is everything else, may import any room.
ROOMS_BELOW = {
    "_kernels": set(),
    "_data": {"_kernels"},
    "_optim": {"_data", "_kernels"},
    "_bayes": {"_optim", "_data", "_kernels"},
}

# What only the folder of this name may import, as it is an extra.
EXTRAS = {"dask": {"dask", "distributed"}}

MAX_FACE_MODULES = 12
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL_ARGUMENTS = 8

SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}


def nodes_of(*types):
    """Return the path of a module and a node, for every node of these types."""
    nodes = [
        (module, node) for module, tree in TREES.items() for node in ast.walk(tree)
    ]
    return [(module, node) for module, node in nodes if isinstance(node, types)]


def imported_paths(module, node):
    """What an import statement takes from this package, as tuples of names."""
    if isinstance(node, ast.Import):
        paths = [alias.name.split(".") for alias in node.names]
    else:
        folders = [PACKAGE.name, *module.split("/")[:-1]]
        # One dot is the folder of the module, each further dot the folder above.
        start = folders[: len(folders) + 1 - node.level] if node.level else []
        start += node.module.split(".") if node.module else []
        paths = [[*start, alias.name] for alias in node.names]
    return [tuple(path[1:]) for path in paths if path[0] == PACKAGE.name]


def outer_packages(node):
    """The modules of other packages that a statement imports, or imports from."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.level == 0 else []


def n_code_lines(module, function):
    """How many lines of a function are not blank, a comment or of its docstring."""
    lines = SOURCES[module].splitlines()[: function.end_lineno]
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    lines = [line.strip() for line in lines[function.lineno - 1 :]]
    return sum(line != "" and not line.startswith("#") for line in lines)


def assert_at_most(largest, sizes):
    """Tell what is larger than it may be; sizes are pairs of name and size."""
    too_large = [f"{what}: {size}" for what, size in sizes if size > largest]
    assert not too_large, "\n".join([*too_large, f"at most {largest}"])


def functions():
    for module, node in nodes_of(ast.FunctionDef):
        yield f"{module}:{node.lineno} {node.name}", module, node


def test_every_private_folder_is_a_room():
    folders = {module.split("/")[0] for module in SOURCES if "/" in module}
    assert {name for name in folders if name.startswith("_")} == set(ROOMS_BELOW)


@pytest.mark.parametrize("room", ROOMS_BELOW)
def test_a_room_imports_nothing_but_rooms_below_it(room):
    allowed = {room, *ROOMS_BELOW[room]}
    refused = [
        f"{module}:{node.lineno} imports {'.'.join(path) or PACKAGE.name}"
        for module, node in nodes_of(ast.Import, ast.ImportFrom)
        if module.startswith(f"{room}/")
        for path in imported_paths(module, node)
        if not allowed.intersection(path[:1])
    ]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("folder", EXTRAS)
def test_only_its_own_folder_imports_an_extra(folder):
    imported = [
        (module, f"{module}:{node.lineno}", name.split(".")[0])
        for module, node in nodes_of(ast.Import, ast.ImportFrom)
        for name in outer_packages(node)
    ]
    assert EXTRAS[folder] <= {name for *_, name in imported}
    refused = [
        f"{place} imports {name}"
        for module, place, name in imported
        if name in EXTRAS[folder] and not module.startswith(f"{folder}/")
    ]
    assert not refused, "\n".join(refused)


def test_the_face_has_few_modules():
    face = [module for module in SOURCES if "/" not in module]
    assert len(face) <= MAX_FACE_MODULES, face


def test_no_module_is_long():
    sizes = [(module, source.count("\n")) for module, source in SOURCES.items()]
    assert_at_most(MAX_MODULE_LINES, sizes)


def test_no_function_is_long():
    sizes = [(name, n_code_lines(module, node)) for name, module, node in functions()]
    assert_at_most(MAX_FUNCTION_LINES, sizes)


def test_no_function_of_a_private_module_takes_many_positional_arguments():
    arguments = [
        (name, [argument.arg for argument in node.args.posonlyargs + node.args.args])
        for name, module, node in functions()
        if "/_" in f"/{module}"
    ]
    sizes = [(name, len(set(given) - {"self", "cls"})) for name, given in arguments]
    assert_at_most(MAX_POSITIONAL_ARGUMENTS, sizes)


def test_no_call_passes_many_positional_arguments():
    calls = nodes_of(ast.Call)
    sizes = [
        (f"{at}:{call.lineno} {ast.unparse(call.func)}", len(call.args))
        for at, call in calls
    ]
    assert_at_most(MAX_POSITIONAL_ARGUMENTS, sizes)


@pytest.mark.skipif(not MAP.exists(), reason="the documentation is not there")
def test_what_the_contributing_page_says_of_the_source_is_there():
    page = MAP.read_text(encoding="utf-8")
    named = re.findall(r"``((?:_\w+/)?_?\w+\.py)``(?:,\s+``([\w.]+)``)?", page)
    private = [(module, name) for module, name in named if module.startswith("_")]
    assert private
    for module, name in private:
        assert module in SOURCES
        assert name.rpartition(".")[2] in SOURCES[module], module
