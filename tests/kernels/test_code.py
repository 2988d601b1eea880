"""What no clock can guard: the machine code of the tiles, regions, compilations."""

import re
import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest
from llvmlite import binding as llvm

from fastbp import MLPClassifier, MLPRegressor, cache
from fastbp.kernels import gemm, simd
from fastbp.kernels.gemm import Left, Out, Right, multiply
from fastbp.tables import TASKS_SHIFT, TICKET
from tests.kernels.test_programs import SGD, make_case, optimizer, train

X86 = simd.TARGET[0].startswith("x86_64")


@numba.njit(error_model="numpy", _nrt=False)
def product(out, left, right, n, rows, width, pitch, floor):
    left = Left(left, 0, pitch, 1, pitch, rows * pitch)
    multiply(Out(out, 0, pitch), left, Right(right, 0, width), n, rows, width, -1, floor)


def compiled(dtype):
    array, i = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C"), numba.intp
    signature = (array, array, array, i, i, i, i, array.dtype)
    product.compile(signature)
    return signature


def loops(assembly, fma):
    """The straight blocks of code that multiply and add and jump back to their start."""
    found = []
    for block in re.split(r"\n(?=\.LBB)", assembly):
        label = block.split(":", 1)[0]
        body = block.split(f"\t{label}\n")[0] if f"\t{label}\n" in block else ""
        if re.search(fma, body):
            found.append(body)
    return found


@pytest.mark.skipif(not (X86 and simd.HAS_FMA), reason="x86 with FMA only")
@pytest.mark.skipif(simd.CHECKED, reason="checks of bounds are further instructions")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tile_loops_are_multiply_adds_and_leave_the_stack_alone(dtype):
    assembly = product.inspect_asm(compiled(dtype))
    register = {64: "zmm", 32: "ymm"}[simd.REGISTER_BYTES]
    multiply_add = rf"vfmadd\d+p[sd].*%{register}"
    found = loops(assembly, multiply_add)
    counts = [len(re.findall(multiply_add, body)) for body in found]
    sums = gemm.TILE_ROWS * gemm.TILE_VECTORS
    zen = simd.TARGET[1].startswith("znver")
    # two steps of k in a loop: the wide tile (or the tall one), two registers, and one,
    # of which LLVM makes four steps for Zen
    assert 2 * sums in counts
    narrow = sorted(count for count in counts if count != 2 * sums)
    assert len(narrow) == 2
    assert narrow[1] == 2 * gemm.TILE_ROWS * 2
    assert narrow[0] == (4 if zen else 2) * gemm.TILE_ROWS
    for count, body in zip(counts, found, strict=True):
        # nothing on the stack; LLVM leaves a pointer's step there, added once or twice in
        # 16 multiply-adds or more, for Zen
        on_stack = re.findall(r"^\t(\w+).*\(%rsp\)", body, re.MULTILINE)
        assert set(on_stack) <= ({"addq", "movq"} if zen else set()), body
        assert len(on_stack) <= 2, body
        if count == 2 * sums:
            instructions = len(re.findall(r"^\t[a-z]", body, re.MULTILINE))
            # besides the sums: loads of rows and columns, steps of pointers and counter
            loads = 2 * (gemm.TILE_ROWS + gemm.TILE_VECTORS)
            tall = 2 * (gemm.TALL_ROWS + 1)
            assert instructions <= 2 * sums + max(loads, tall) + 12, body


FOR_AARCH64 = """
    from fastbp.kernels import simd
    simd.REGISTER_BYTES, simd.REGISTERS, simd.HAS_FMA = 16, 32, True
    from tests.kernels import test_code
    signature = test_code.compiled("float32")
    print(test_code.product.inspect_llvm(signature))
"""


def test_an_aarch64_target_gets_vector_multiply_adds():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("llvmlite was built without AArch64")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FOR_AARCH64)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    code = re.sub(r'"target-(cpu|features)"="[^"]*"', "", result.stdout)
    code = re.sub(r'target (triple|datalayout) = "[^"]*"', "", code)
    machine = target.create_target_machine(cpu="neoverse-n1", opt=3)
    assembly = machine.emit_assembly(llvm.parse_assembly(code))
    assert len(re.findall(r"fmla\s+v\d+\.4s", assembly)) >= 2 * 8 * gemm.TILE_VECTORS


def test_a_step_opens_two_regions_at_any_depth():
    for units in ((5, 3), (5, 9, 3), (5, 9, 9, 9, 3)):
        case = make_case(np.float64, units, 40, "relu", "softmax")
        result = train(case, optimizer(SGD), batch_size=10)
        assert result.work.team[TICKET] >> 2 * TASKS_SHIFT == 2 * result.taken


def test_one_compilation_serves_all_networks_of_a_dtype():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    settings = (
        {"solver": "adam", "activation": "relu"},
        {"solver": "sgd", "activation": "tanh", "hidden_layer_sizes": (3, 4, 5)},
        {"solver": "sgd", "nesterovs_momentum": False, "hidden_layer_sizes": ()},
    )
    for dtype in (np.float32, np.float64):
        for model in (MLPClassifier, MLPRegressor):
            for options in settings:
                estimator = model(max_iter=1, **options)
                with pytest.warns(match="Maximum iterations"):
                    estimator.fit(X.astype(dtype), y)
                estimator.predict(X.astype(dtype))
                estimator.predict(X[:1].astype(dtype))
        for name in ("train_steps", "predict_rows", "predict_single_rows"):
            program = cache._programs[name, np.dtype(dtype).str]
            assert len(program.signatures) == 1
            # compiled without reference counts it could not allocate anything
            assert program.targetoptions["_nrt"] is False
