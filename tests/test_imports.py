"""Rules about the source that no run can show: who imports whom, what kernels use."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fastbp

PACKAGE = Path(fastbp.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(
        path.read_text(encoding="utf-8"), str(path)
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}
KERNELS = [name for name in SOURCES if name.startswith("kernels.")]

#: Who may import whom: the modules of a row those of the same row and further down.
ROWS = [
    {"__init__", "__main__"},
    {"maintenance", "export", "display", "many", "search"},
    {"estimators"},
    {"base"},
    {"gradients", "predicting"},
    {"lbfgs", "convert"},
    {"training", "rows"},
    {"callbacks", "validation", "parameters"},
    {"progress", "initial", "schedules", "own_loss"},
    {"network"},
    {"kernels.__init__"},  # functions for users, on plain arrays
    {"kernels.calls", "kernels.overloads"},
    {"threads"},
    {"launch"},
    {"cache"},
    {"messages", "aside"},
    {"kernels.programs", "kernels.arrays", "kernels.rows"},
    {"kernels.clipping", "kernels.more_losses"},
    {"kernels.dense", "kernels.hidden"},
    {"kernels.more_updates"},
    {"kernels.losses", "kernels.updates"},
    {"kernels.gemm", "kernels.activations", "kernels.team"},
    {"kernels.simd"},
    {"typing"},
    {"tables"},  # names and numbers that need nothing
]
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules}

#: Decorators under fastbp/kernels: the shared ones, and those of Numba's extensions.
DECORATORS = {"kernel", "part", "intrinsic", "overload", "register_default"}
#: Decorators of Numba's typing of operators, and of plain Python.
OTHER_DECORATORS = {"infer_global", "functools.cache"}


def module_of(dotted):
    """The module of the package that a dotted name lies in, or None."""
    parts = dotted.split(".")
    if parts[0] != "fastbp":
        return None
    for end in range(len(parts), 1, -1):
        name = ".".join(parts[1:end])
        for candidate in (name, f"{name}.__init__"):
            if candidate in SOURCES:
                return candidate
    return "__init__"


def imports(name):
    """Modules of the package that a module imports anywhere, even inside a function."""
    found = set()
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Import):
            found |= {module_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found |= {module_of(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
            found.add(module_of(leading_text(node.args[0])))
    return found - {None, name}


def leading_text(node):
    """The text of a string, or of an f-string up to its first value."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return node.value.rstrip(".") if isinstance(node, ast.Constant) else ""


def dotted(node):
    """``a.b.c`` of an expression, without the arguments of calls."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_in(tree):
    """Every identifier that a module uses: names, attributes, keywords, imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.Constant) and str(node.value).isidentifier():
            yield str(node.value)  # keys of options, names for getattr


def test_every_module_has_its_row():
    assert set(SOURCES) - {"kernels.__init__"} <= set(ROW_OF)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_one_way(name):
    for imported in imports(name):
        # programs are asked for by name: a package name alone says nothing
        if imported == "kernels.__init__" and name in ("launch", "cache"):
            continue
        assert ROW_OF[imported] >= ROW_OF[name], f"{name} imports {imported}"


def test_imports_have_no_cycle():
    graph = {name: imports(name) for name in SOURCES}
    for name in ("launch", "cache"):
        graph[name].discard("kernels.__init__")
    graph["__main__"].discard("__init__")
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_rule_would_notice_an_import_inside_a_function():
    # launch imports lazily, and only so
    assert {"kernels.simd", "kernels.gemm"} <= imports("launch")


@pytest.mark.parametrize("name", ["estimators", "training", "network", "tables"])
def test_policy_does_not_know_numba(name):
    assert not {"numba", "llvmlite"} & set(names_in(SOURCES[name]))


@pytest.mark.parametrize("name", ["training", "network", "cache", "tables", *KERNELS])
def test_only_the_estimators_know_scikit_learn(name):
    # and the gate, which asks its OpenMP for the limit that threadpoolctl has set
    assert "sklearn" not in set(names_in(SOURCES[name]))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_compiled_with_the_shared_options(name):
    # simd makes the shared decorators; what users call is compiled to be called
    own = {"njit"} if name in ("kernels.simd", "kernels.overloads") else set()
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for decorator in map(dotted, node.decorator_list):
                known = DECORATORS | OTHER_DECORATORS | own
                assert decorator in known, f"{node.name}: {decorator}"
    jits = {
        "njit",
        "jit",
        "vectorize",
        "guvectorize",
        "stencil",
        "cfunc",
        "generated_jit",
    }
    used = jits & set(names_in(SOURCES[name]))
    assert used == own


@pytest.mark.parametrize("name", SOURCES)
def test_arithmetic_is_ieee(name):
    assert "fastmath" not in set(names_in(SOURCES[name]))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_do_not_ask_for_threads(name):
    # what a task computes would depend on who takes it
    forbidden = {"get_thread_id", "get_num_threads", "set_num_threads"}
    assert not forbidden & set(names_in(SOURCES[name]))


@pytest.mark.parametrize("name", SOURCES)
def test_nobody_changes_numbas_settings(name):
    for node in ast.walk(SOURCES[name]):
        targets = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            written = target.value if isinstance(target, ast.Subscript) else target
            # an attribute or item of config or environ, not a variable of that name
            deep = target is not written or isinstance(target, ast.Attribute)
            path = dotted(written).split(".")
            assert not (deep and {"config", "environ"} & set(path)), ast.unparse(node)
        if isinstance(node, ast.Call):
            call = dotted(node.func)
            writes = ("environ.update", "environ.setdefault", "putenv", "environ.pop")
            assert not call.endswith(writes), ast.unparse(node)
            if call in ("setattr", "delattr"):
                assert "config" not in dotted(node.args[0]), ast.unparse(node)
