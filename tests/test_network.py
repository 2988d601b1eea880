"""Where a network's numbers are stored, and how they start."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse
from sklearn.neural_network import MLPClassifier

from fastbp import launch, network
from fastbp.initial import initial_weights

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]


def make_plan(units, dtype):
    return network.layout(tuple(units), "relu", "identity", dtype)


def around(*numbers):
    return sorted({n + d for n in numbers for d in (-1, 0, 1) if n + d > 0})


def shapes(dtype):
    """Networks whose sizes lie around whole registers, tiles and panels."""
    tile = launch.tile_shape(dtype)
    panel = tile.panel
    sizes = around(1, tile.lanes, tile.rows, 2 * tile.lanes, panel, 2 * panel, 200)
    for n in sizes:
        yield (n, 3)
        yield (3, n)
        yield (3, n, 2)
        yield (n, n, n, n)
    rng = np.random.default_rng(0)
    for depth in (1, 2, 3, 4) * 8:
        yield tuple(rng.choice(sizes, depth + 1).tolist())


def number_all(units, dtype):
    """Parameters that are all different, none of them zero."""
    count = sum((i + 1) * o for i, o in pairwise(units))
    numbers = iter(np.split(np.arange(1, count + 1, dtype=dtype), count))
    coefs = [
        np.concatenate([next(numbers) for _ in range(i * o)]).reshape(i, o)
        for i, o in pairwise(units)
    ]
    intercepts = [np.concatenate([next(numbers) for _ in range(o)]) for o in units[1:]]
    return coefs, intercepts, count


def small_shapes(dtype):
    """Shapes whose parameters can be numbered exactly, and in no time."""
    for units in shapes(dtype):
        if sum(i * o for i, o in pairwise(units)) < 40_000:
            yield units


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpack_gives_back_what_was_packed(dtype):
    for units in small_shapes(dtype):
        plan = make_plan(units, dtype)
        coefs, intercepts, count = number_all(units, dtype)
        theta = network.pack(plan, coefs, intercepts)
        found = network.unpack(plan, theta)
        for got, wanted in zip(found, (coefs, intercepts), strict=True):
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == dtype
                assert a.flags.c_contiguous
                assert not np.shares_memory(a, theta)
        # every parameter is in theta once, beside zeros only
        stored = np.sort(theta[theta != 0])
        np.testing.assert_array_equal(stored, np.arange(1, count + 1))


def panels(plan, columns):
    """(first column, width) of the panels of so many columns."""
    for start in range(0, columns, plan.panel):
        yield start, min(plan.panel, columns - start)


def test_panels_are_as_wide_as_a_tile():
    for dtype in DTYPES:
        tile, plan = launch.tile_shape(dtype), make_plan((3, 4), dtype)
        # whole tiles, whether its columns are columns of weights or rows
        assert plan.panel == tile.panel
        assert plan.panel % tile.lanes == plan.panel % tile.rows == 0
        assert plan.grain % tile.lanes == plan.grain % tile.rows == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_cover_theta_once(dtype):
    lanes = launch.tile_shape(dtype).lanes
    for units in shapes(dtype):
        plan = make_plan(units, dtype)
        theta, turned, places = (
            np.zeros(n, int)
            for n in (plan.n_parameters, plan.n_transposed, plan.n_columns)
        )
        layers = plan.net.layers
        assert plan.net.depth == len(units) - 1
        assert layers["units"].tolist() == list(units)
        for u, layer in enumerate(layers):
            columns, place = layer["columns"], layer["place"]
            # padded to whole registers, and in A and D to whole panels
            assert columns % lanes == 0
            assert units[u] <= columns < units[u] + lanes
            places[place : place + -(-columns // plan.panel) * plan.panel] += 1
            if u > 0:
                # whole tiles, and whole registers where there is a transposed copy
                grain = plan.grain if u > 1 else launch.tile_shape(plan.dtype).rows
                assert layer["rows"] % grain == 0
                assert units[u - 1] <= layer["rows"] < units[u - 1] + grain
                first, biases = layer["weights"], layer["biases"]
                theta[first : first + layer["rows"] * columns] += 1
                theta[biases : biases + columns] += 1
                # all weights before all biases: the penalty is on a prefix
                assert first + layer["rows"] * columns <= layers["biases"][1]
            if 0 < u < plan.net.depth:
                first = layer["transposed"]
                turned[first : first + columns * layers["columns"][u + 1]] += 1
        for counts in (theta, turned, places):
            assert (counts == 1).all()
        assert plan.multiplications == sum(i * o for i, o in pairwise(units))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_lie_in_panels_row_after_row(dtype):
    for units in small_shapes(dtype):
        plan = make_plan(units, dtype)
        coefs, intercepts, _ = number_all(units, dtype)
        theta = network.pack(plan, coefs, intercepts)
        outputs = plan.net.layers[1:]
        for layer, W, b in zip(outputs, coefs, intercepts, strict=True):
            for start, width in panels(plan, int(layer["columns"])):
                real = min(width, W.shape[1] - start)
                for r in {0, len(W) // 2, len(W) - 1}:
                    at = layer["weights"] + start * layer["rows"] + r * width
                    np.testing.assert_array_equal(
                        theta[at : at + real], W[r, start : start + real]
                    )
            at = layer["biases"]
            np.testing.assert_array_equal(theta[at : at + b.size], b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_transposed_weights_hold_every_weight_but_the_first_layers(dtype):
    for units in small_shapes(dtype):
        plan = make_plan(units, dtype)
        coefs, _, _ = number_all(units, dtype)
        turned = network.transposed_weights(plan, coefs)
        for u in range(1, plan.net.depth):
            inputs, outputs = plan.net.layers[u : u + 2]
            for start, width in panels(plan, int(inputs["columns"])):
                first = inputs["transposed"] + start * outputs["columns"]
                real = min(width, units[u] - start)
                panel = turned[first : first + outputs["columns"] * width]
                panel = panel.reshape(-1, width)[: units[u + 1], :real]
                np.testing.assert_array_equal(panel, coefs[u][start : start + real].T)
        assert np.count_nonzero(turned) == sum(W.size for W in coefs[1:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_can_be_transposed_out_of_theta(dtype):
    for units in small_shapes(dtype):
        plan = make_plan(units, dtype)
        coefs, intercepts, _ = number_all(units, dtype)
        wanted = network.transposed_weights(plan, coefs)
        # what an earlier theta left behind
        found = network.transposed_weights(plan, [W + 1 for W in coefs])
        theta = network.pack(plan, coefs, intercepts)
        network.transpose_weights(plan, theta, found)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sparse_inputs_have_no_panels(dtype):
    for units in shapes(dtype):
        plan = make_plan(units, dtype)
        without = network.layout(units, "relu", "identity", dtype, sparse=True)
        inputs = plan.net.layers["place"][1]
        assert without.n_columns == plan.n_columns - inputs
        places = plan.net.layers["place"][1:] - inputs
        np.testing.assert_array_equal(without.net.layers["place"][1:], places)
        for name in set(plan.net.layers.dtype.names) - {"place"}:
            a, b = plan.net.layers[name], without.net.layers[name]
            np.testing.assert_array_equal(a, b)
        assert without.n_parameters == plan.n_parameters


def sparse_plan(features, dtype):
    return network.layout((features, 3), "relu", "identity", dtype, sparse=True)


def sparse_data(X, dtype):
    plan = sparse_plan(X.shape[1], dtype)
    return network.training_data(plan, X, (), None, np.arange(X.shape[0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
def test_sparse_matrices_are_read_in_place_where_they_can_be(dtype, container):
    rng = np.random.default_rng(0)
    full = rng.standard_normal((20, 7)) * (rng.random((20, 7)) < 0.3)
    X = container(full.astype(dtype))
    data = sparse_data(X, dtype)
    assert np.shares_memory(data.X, X.data)
    assert np.shares_memory(data.indices, X.indices)
    assert data.indptr.dtype == np.int64
    np.testing.assert_array_equal(data.indptr, X.indptr)
    assert X.data.flags.writeable
    other = container(full.astype(np.float32 if dtype == np.float64 else np.float64))
    wide = container((X.data, X.indices.astype("i8"), X.indptr.astype("i8")), X.shape)
    for source in (other, wide):
        taken = sparse_data(source, dtype)
        assert taken.X.dtype == dtype
        assert taken.indices.dtype == np.int32
        np.testing.assert_array_equal(taken.X, source.data.astype(dtype))
        np.testing.assert_array_equal(taken.indices, X.indices)


def test_sparse_entries_are_sorted_and_summed_in_a_copy():
    X = sparse.csr_matrix(([1.0, 2, 3, 4], [3, 1, 3, 0], [0, 3, 3, 4]), shape=(3, 5))
    data = sparse_data(X, np.dtype(float))
    np.testing.assert_array_equal(data.X, [2, 4, 4])
    np.testing.assert_array_equal(data.indices, [1, 3, 0])
    np.testing.assert_array_equal(data.indptr, [0, 2, 2, 3])
    np.testing.assert_array_equal(X.indices, [3, 1, 3, 0])
    np.testing.assert_array_equal(X.data, [1, 2, 3, 4])


def test_sparse_entries_are_checked_anew():
    # what a matrix has said of itself before its arrays were changed does not count
    X = sparse.csr_matrix(([1.0, 2, 3], [0, 1, 3], [0, 3]), shape=(1, 5))
    assert X.has_canonical_format
    X.indices[:] = [3, 1, 0]
    np.testing.assert_array_equal(sparse_data(X, np.dtype(float)).X, [3, 2, 1])


@pytest.mark.parametrize("index", [5, -1, 2**31 - 1])
def test_sparse_indices_out_of_range_are_refused(index):
    X = sparse.csr_matrix(([1.0, 2, 3], [0, 1, 3], [0, 2, 3]), shape=(2, 5))
    X.indices[1] = index
    with pytest.raises(ValueError, match="ind"):
        network.check_indices(X)


def test_a_layout_is_for_dense_or_for_sparse_inputs():
    X, dtype = np.ones((4, 5)), np.dtype(float)
    order = np.arange(4)
    with pytest.raises(ValueError, match="sparse"):
        network.training_data(
            make_plan((5, 3), dtype), sparse.csr_matrix(X), (), None, order
        )
    with pytest.raises(ValueError, match="sparse"):
        network.training_data(sparse_plan(5, dtype), X, (), None, order)
    with pytest.raises(ValueError, match="'csr'"):
        sparse_data(sparse.csc_matrix(X), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_zeros_start_on_a_cache_line(dtype):
    for n in (0, 1, 7, 1000):
        array = network.aligned_zeros(n, dtype)
        assert array.shape == (n,)
        assert array.dtype == dtype
        assert n == 0 or array.ctypes.data % 64 == 0
        assert not array.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tasks_take_every_weight_once(dtype):
    for units, batch in (((3, 5), 1), ((40, 100, 300, 7), 200), ((9, 500), 5000)):
        plan = make_plan(units, dtype)
        coefs, _, _ = number_all(units, dtype)
        work = network.training_workspace(plan, batch, 1, coefs)
        covered = np.zeros(plan.n_parameters, int)
        for layer, first, last, begin, end in work.tasks.tolist():
            outputs = plan.net.layers[layer + 1]
            assert begin % plan.panel == first % plan.grain == 0
            # whole panels of inputs, or a part of one
            within = first // plan.panel == (last - 1) // plan.panel
            assert first % plan.panel == 0 or within
            for start, width in panels(plan, int(outputs["columns"])):
                if begin <= start < end:
                    panel = outputs["weights"] + start * outputs["rows"]
                    covered[panel + first * width : panel + last * width] += 1
        weights = plan.net.layers["biases"][1]
        sizes = [
            (last - first) * (end - begin) for _, first, last, begin, end in work.tasks
        ]
        assert sizes == sorted(sizes, reverse=True)
        assert (covered[:weights] == 1).all()
        assert not covered[weights:].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_initial_weights_are_drawn_as_documented(dtype, activation):
    units = (7, 20, 1, 33, 3)
    drawn = np.random.RandomState(3)
    coefs, intercepts = initial_weights(units, activation, drawn, dtype)
    random_state = np.random.RandomState(3)
    for (fan_in, fan_out), W, b in zip(pairwise(units), coefs, intercepts, strict=True):
        bound = np.sqrt((2 if activation == "logistic" else 6) / (fan_in + fan_out))
        weights = random_state.uniform(-bound, bound, (fan_in, fan_out))
        biases = random_state.uniform(-bound, bound, fan_out)
        np.testing.assert_array_equal(W, weights.astype(dtype))
        np.testing.assert_array_equal(b, biases.astype(dtype))
        assert W.dtype == b.dtype == dtype
    # nothing else was drawn
    assert drawn.uniform() == random_state.uniform()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_initial_weights_are_scikit_learns(dtype, activation):
    units = (11, 6, 17, 2)
    theirs = MLPClassifier(activation=activation)
    theirs._random_state = np.random.RandomState(9)
    ours = initial_weights(units, activation, np.random.RandomState(9), dtype)
    for layer, (fan_in, fan_out) in enumerate(pairwise(units)):
        W, b = theirs._init_coef(fan_in, fan_out, dtype)
        np.testing.assert_array_equal(ours[0][layer], W)
        np.testing.assert_array_equal(ours[1][layer], b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_are_used_in_place_where_they_can_be(dtype):
    X = np.arange(12, dtype=dtype).reshape(3, 4)
    assert network.in_place(X, dtype) is X
    frozen = X.copy()
    frozen.flags.writeable = False
    assert np.shares_memory(network.in_place(frozen, dtype), frozen)
    other = X.astype(np.float32 if dtype == np.float64 else np.float64)
    for source in (X[:, ::2], X[::-1], np.asfortranarray(X), other):
        taken = network.in_place(source, dtype)
        np.testing.assert_array_equal(taken, source)
        assert taken.dtype == dtype
        assert taken.flags.c_contiguous


def test_read_only_views_leave_the_array_writeable():
    X = np.ones((3, 4))
    flat = network.read_only(X)
    assert flat.shape == (12,)
    assert np.shares_memory(flat, X)
    assert not flat.flags.writeable
    assert X.flags.writeable
