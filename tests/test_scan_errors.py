"""Every misuse of scan: the class of its error, when it comes, and that it names what is meant."""

import inspect
import re

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.theano import gof

f32 = np.float32


def ones(*shape):
    return np.ones(shape, "float32")


def next_line():
    """The line after the caller's, as an error prints it."""
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno + 1}"


def text_of(error, call):
    """All that a user reads: the message and the notes."""
    with pytest.raises(error) as found:
        call()
    assert type(found.value) is error or error is not ValueError
    return "\n".join([str(found.value), *getattr(found.value, "__notes__", ())])


# ---- build time: arguments -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [T.scalar("n_rows"), 2.0, T.dscalar("n_rows"), np.float32(3)])
def test_n_steps_that_is_not_an_integer(n):
    text = text_of(ValueError, lambda: theano.scan(lambda a: a, None, T.scalar("a"), n_steps=n))
    assert "n_steps must be an int. dtype provided is float" in text


def test_n_steps_that_is_a_vector():
    n = T.ivector("n_rows")
    text = text_of(ValueError, lambda: theano.scan(lambda a: a, None, T.scalar("a"), n_steps=n))
    assert "n_steps must be an int" in text and "n_rows" in text


def test_neither_sequences_nor_n_steps():
    text = text_of(ValueError, lambda: theano.scan(lambda a: a, None, T.scalar("a")))
    assert (
        "No information about the number of steps provided. Either provide a value for n_steps "
        "argument of scan or provide an input sequence" in text
    )


@pytest.mark.parametrize("taps", [[0], [1], [-1, 1], [-1, 0]])
def test_output_taps_that_are_not_in_the_past(taps):
    infos = [None, dict(initial=T.vector("a"), taps=taps)]
    text = text_of(ValueError, lambda: theano.scan(lambda *s: [s[0], s[0]], None, infos, n_steps=3))
    assert "All the tap values must be smaller than 0." in text
    assert "outputs_info[1]" in text and str(taps) in text


def test_output_taps_that_repeat():
    info = dict(initial=T.vector("a"), taps=[-2, -2])
    text = text_of(ValueError, lambda: theano.scan(lambda *s: s[0], None, [info], n_steps=3))
    assert "All the taps must be different in  `outputs_info`" in text
    assert "outputs_info[0]" in text


def test_output_taps_without_an_initial_state():
    text = text_of(
        ValueError, lambda: theano.scan(lambda *s: s[0], None, [dict(taps=[-2])], n_steps=3)
    )
    assert "If you are using slices of an output you need to provide a initial state for it" in text
    assert "outputs_info[0]" in text


def test_return_steps():
    info = dict(initial=T.scalar("a"), return_steps=1)
    text = text_of(ValueError, lambda: theano.scan(lambda s: s, None, [info], n_steps=3))
    assert text.startswith(
        "Using `return_steps` has been deprecated. Simply select the entries you need using a "
        "subtensor. Scan will optimize memory consumption, so do not worry about that."
    )


def test_return_steps_of_none_is_no_misuse():
    theano.scan(lambda s: s, None, [dict(initial=T.scalar("a"), return_steps=None)], n_steps=3)


def test_keys_that_are_not_known():
    info = dict(initial=T.scalar("a"), tap=[-1])
    text = text_of(ValueError, lambda: theano.scan(lambda s: s, None, [None, info], n_steps=3))
    assert "These keys were unexpected in Scan outputs_info[1]: {'tap': [-1]}" in text
    seq = dict(input=T.vector("x"), step=2)
    text = text_of(ValueError, lambda: theano.scan(lambda s: s, [T.vector("y"), seq]))
    assert "These keys were unexpected in Scan sequences[1]: {'step': 2}" in text


def test_a_sequence_dict_without_input():
    text = text_of(ValueError, lambda: theano.scan(lambda s: s, [T.vector("y"), dict(taps=[0])]))
    assert "sequences[1]" in text and "input" in text


def test_a_scalar_sequence():
    text = text_of(ValueError, lambda: theano.scan(lambda s: s, [T.scalar("alpha")]))
    assert "sequences[0]" in text and "alpha" in text and "non_sequences" in text


def test_sequence_taps_that_are_not_integers():
    text = text_of(
        (TypeError, ValueError),
        lambda: theano.scan(lambda s: s, [dict(input=T.vector("y"), taps=[0.5])]),
    )
    assert "sequences[0]" in text and "0.5" in text


def test_output_taps_need_as_many_rows():
    start = T.constant(np.zeros((1, 3), "float32"), name="start")
    text = text_of(
        ValueError,
        lambda: theano.scan(lambda *s: s[0], None, [dict(initial=start, taps=[-2])], n_steps=3),
    )
    assert "outputs_info[0]" in text and "2 rows" in text and "start" in text


def test_output_taps_of_a_scalar_initial_state():
    text = text_of(
        ValueError,
        lambda: theano.scan(
            lambda *s: s[0], None, [dict(initial=T.scalar("start"), taps=[-2, -1])], n_steps=3
        ),
    )
    assert "outputs_info[0]" in text and "2 rows" in text and "start" in text


def test_fn_that_is_not_callable():
    text = text_of(TypeError, lambda: theano.scan(T.scalar("s"), T.vector("x")))
    assert "fn" in text


def test_truncate_gradient_out_of_range():
    text = text_of(
        ValueError, lambda: theano.scan(lambda s: s, T.vector("x"), truncate_gradient=-2)
    )
    assert "truncate_gradient" in text and "-2" in text


def test_something_that_is_no_tensor_among_the_arguments():
    for name, entry in [("sequences", "words"), ("outputs_info", "words"), ("non_sequences", "w")]:
        text = text_of(
            TypeError,
            lambda name=name, entry=entry: theano.scan(
                lambda *s: s[0], **{"sequences": T.vector("x"), name: [entry]}
            ),
        )
        assert f"{name}[0]" in text and repr(entry) in text


def test_the_signature_of_fn_does_not_fit():
    x, a = T.vector("x"), T.scalar("a")
    text = text_of(TypeError, lambda: theano.scan(lambda r: r, x, a))
    assert "positional argument" in text
    assert "x[t]" in text and "a[t-1]" in text


# ---- build time: what fn returns -----------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [3, 2.5, None, np.ones(2), "text", [None], [3], (T.scalar(), 2)], ids=repr
)
def test_fn_returns_something_that_is_no_variable(bad):
    text = text_of(ValueError, lambda: theano.scan(lambda r: bad, T.vector("x")))
    assert (
        "The return value of your scan lambda expression may only be made of lists, tuples, or "
        "dictionaries containing Theano variables (or `theano.scan_module.until` objects for "
        "conditions). In particular if you need to use constant values, you can use "
        "`tensor.constant` to turn them into Theano variables." in text
    )


def test_an_update_that_is_no_variable():
    k = theano.shared(f32(0), "k")
    text = text_of(ValueError, lambda: theano.scan(lambda r: {k: 3}, T.vector("x")))
    assert "may only be made of" in text


def test_updates_before_outputs():
    k = theano.shared(f32(0), "k")
    text = text_of(ValueError, lambda: theano.scan(lambda r: ({k: k + 1}, [r]), T.vector("x")))
    assert (
        "The return value of the lambda function has been restricted. you have to always return "
        "first the outputs (if any), afterwards the updates (if any) and at the end the conclusion"
        in text
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda r, k: (r, {k: k + 1}, theano.until(r > 0), r),
        lambda r, k: (r, theano.until(r > 0), {k: k + 1}),
        lambda r, k: (theano.until(r > 0), r),
        lambda r, k: ({k: k + 1}, {k: k + 1}),
    ],
)
def test_other_shapes_of_what_fn_returns(make):
    k = theano.shared(f32(0), "k")
    text = text_of(ValueError, lambda: theano.scan(lambda r: make(r, k), T.vector("x")))
    assert "Scan cannot parse the return value of your lambda expression, which is: " in text


def test_a_condition_that_is_no_scalar():
    with pytest.raises(AssertionError, match="until.*marks"):
        theano.scan(lambda r: (r, theano.until(T.vector("marks"))), T.vector("x"))


def test_an_update_of_something_that_is_not_shared():
    text = text_of(TypeError, lambda: theano.scan(lambda r: {r: r + 1}, T.vector("x")))
    assert "OrderedUpdates keys must inherit from SharedVariable" in text


@pytest.mark.parametrize("n_steps", [None, 1])
def test_the_number_of_outputs_does_not_fit(n_steps):
    x = T.vector("x")
    text = text_of(
        ValueError, lambda: theano.scan(lambda r, s: [r, s], x, [T.scalar("a")], n_steps=n_steps)
    )
    assert (
        "Please provide None as outputs_info for any output that does not feed back into scan "
        "(i.e. it behaves like a map)" in text
    )
    assert "returns 2 outputs" in text and "an entry for 1" in text


# ---- build time: the type of states --------------------------------------------------------------


def test_a_state_whose_dtype_changes():
    x = T.vector("x")
    text = text_of(
        ValueError, lambda: theano.scan(lambda r, a, s: [r, s + r], x, [T.scalar("b"), 0])
    )
    assert "initial state" in text and "outputs_info" in text
    assert "has dtype int8" in text and "has dtype float32" in text
    assert "This can happen if the inner function of scan results in an upcast or downcast." in text
    assert "argument number 1" in text


def test_a_state_whose_dtype_changes_names_variable_scan_and_lines():
    x, h0 = T.dvector("x"), T.scalar("h0")

    def step(r, h):
        global where
        where = next_line()
        return h + r

    def build():
        global call
        call = next_line()
        theano.scan(step, x, h0, name="decoder")

    text = text_of(ValueError, build)
    assert text.startswith(
        "When compiling the inner function of scan the following error has been encountered: "
    )
    for word in ("h0", "decoder", "float32", "float64", where, call):
        assert word in text


def test_a_state_whose_number_of_dimensions_changes():
    x, start = T.matrix("x"), T.vector("start")
    text = text_of(ValueError, lambda: theano.scan(lambda r, s: (r + s).sum(), x, start))
    assert "start" in text
    assert re.search(r"has 1 dimension\(s\)", text) and re.search(r"has 0 dimension\(s\)", text)
    # with several taps, too
    first = T.matrix("first")
    text = text_of(
        ValueError,
        lambda: theano.scan(
            lambda r, s, t: (r + s + t).sum(), x, dict(initial=first, taps=[-2, -1])
        ),
    )
    assert "first" in text
    assert "it should be one less than the initial state" in text


def test_a_state_whose_known_shape_changes():
    start = T.constant(np.zeros(3, "float32"), name="start")
    text = text_of(
        ValueError, lambda: theano.scan(lambda s: T.concatenate([s, s]), None, start, n_steps=3)
    )
    assert "start" in text and "(3,)" in text and "(6,)" in text


def test_a_size_of_one_that_the_step_makes_another_known_size():
    start = T.constant(np.zeros((1, 2), "float32"), name="start")
    more = T.constant(np.zeros((3, 2), "float32"))
    text = text_of(
        (TypeError, ValueError), lambda: theano.scan(lambda s: s + more, None, start, n_steps=3)
    )
    assert "start" in text and "(1, 2)" in text and "(3, 2)" in text


def test_an_update_whose_type_changes():
    k = theano.shared(np.int32(0), "counter")
    x = T.vector("x")
    text = text_of(ValueError, lambda: theano.scan(lambda r: {k: k + r}, x))
    assert "counter" in text and "int32" in text and "float64" in text


# ---- build time: missing inputs ------------------------------------------------------------------


def test_strict_refuses_a_captured_shared_variable():
    w, x = theano.shared(f32(2), "weights"), T.vector("x")
    call = next_line()
    build = lambda: theano.scan(lambda r: r * w, x, strict=True, name="enc")  # noqa: E731
    text = text_of(gof.fg.MissingInputError, build)
    assert "weights" in text and "enc" in text and "non_sequences" in text
    assert "An input of the graph" in text and "not provided and not given a value" in text
    assert call in text


def test_the_missing_input_error_has_theanos_names():
    assert gof.fg.MissingInputError is gof.MissingInputError
    assert theano.MissingInputError is gof.MissingInputError


def test_an_update_that_reads_what_nothing_else_does():
    c, inc = theano.shared(np.array([[0.0]], "float32"), "c"), T.scalar("inc")
    text = text_of(gof.MissingInputError, lambda: theano.scan(lambda: {c: c + inc}, n_steps=3))
    assert "inc" in text
    assert (
        "Please pass this variable to the scan's inner function. Do not forget to also pass it "
        "to the `non_sequences` attribute of scan." in text
    )
    # as the message says
    theano.scan(lambda inc: {c: c + inc}, non_sequences=inc, n_steps=3)


def test_a_captured_variable_that_the_function_lacks():
    x, w = T.vector("x"), T.scalar("gain")
    out, _ = theano.scan(lambda r: r * w, x)
    text = text_of(gof.MissingInputError, lambda: theano.function([x], out))
    assert "gain" in text and __file__ in text


def test_the_scans_own_variable_used_outside():
    x = T.vector("x")
    leaked = []
    theano.scan(lambda r: leaked.append(r) or r, x)
    text = text_of(gof.MissingInputError, lambda: theano.function([x], leaked[0] + x[0]))
    assert "x[t]" in text


# ---- run time ------------------------------------------------------------------------------------


def test_a_sequence_that_is_too_short():
    x, n = T.vector("samples"), T.iscalar("n")
    here = next_line()
    out, _ = theano.scan(lambda r: r * 2, x, n_steps=n, name="filter")
    f = theano.function([x, n], out)
    text = text_of(ValueError, lambda: f([1, 2, 3], 5))
    assert (
        "Sequence is shorter then the required number of steps : (n_steps, seq, seq.shape):" in text
    )
    for word in ("5", "samples", "(3,)", "filter", here):
        assert word in text


def test_a_sequence_that_is_too_short_after_its_taps():
    x, n = T.vector("samples"), T.iscalar("n")
    out, _ = theano.scan(lambda p, r: p + r, dict(input=x, taps=[-2, 0]), n_steps=n)
    f = theano.function([x, n], out)
    assert len(f(ones(5), 3)) == 3
    text = text_of(ValueError, lambda: f(ones(5), 4))
    assert "Sequence is shorter" in text and "samples" in text


def test_a_negative_number_of_steps():
    a, n = T.scalar("a"), T.iscalar("n")
    here = next_line()
    out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=n, name="filter")
    f = theano.function([a, n], out)
    text = text_of(IndexError, lambda: f(1, -3))
    for word in ("Scan was asked to run for negative number of step -3", "filter", here):
        assert word in text


def test_a_negative_number_of_steps_over_a_sequence():
    x, n = T.vector("x"), T.iscalar("n")
    out, _ = theano.scan(lambda r: r * 2, x, n_steps=n)
    f = theano.function([x, n], out)
    assert "negative number of step -3" in text_of(IndexError, lambda: f([1, 2, 3, 4], -3))


def test_a_constant_negative_number_of_steps():
    a = T.scalar("a")

    def call():
        out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=-2)
        theano.function([a], out)(1)

    assert "negative number of step -2" in text_of(IndexError, call)


def test_a_state_that_changes_shape():
    a = T.vector("start")
    out, _ = theano.scan(lambda s: T.concatenate([s, s]), None, a, n_steps=3, name="doubling")
    f = theano.function([a], out)
    text = text_of(ValueError, lambda: f([1, 2]))
    assert "An output of the scan has changed shape" in text
    for word in ("doubling", "(2,)", "(4,)", "step 0", __file__):
        assert word in text


def test_an_output_that_changes_shape():
    i = T.ivector("i")
    out, _ = theano.scan(lambda k: T.arange(k), i, name="ragged")
    f = theano.function([i], out)
    text = text_of(ValueError, lambda: f(np.array([2, 2, 3], "int32")))
    assert "An output of the scan has changed shape" in text
    for word in ("ragged", "(2,)", "(3,)", "step 2", __file__):
        assert word in text


def test_an_error_inside_a_step_says_the_step_the_op_and_the_lines():
    x, w = T.matrix("x"), T.vector("w")

    def step(r, s, w):
        global where
        where = next_line()
        return s + T.dot(r * s, w)

    here = next_line()
    out, _ = theano.scan(step, x, T.constant(f32(0)), w, name="layer")
    f = theano.function([x, w], out)
    text = text_of(ValueError, lambda: f(ones(2, 3), ones(4)))
    for word in ("step 0", "layer", where, here, "(3,)", "(4,)"):
        assert word in text


def test_errors_in_a_step_show_its_own_names_and_lines_beside_an_equal_step():
    x, w = T.vector("x"), T.vector("w")
    other, _ = theano.scan(lambda r, s, w: s * r + w, x, T.zeros(2), w)
    samples, weights = T.vector("samples"), T.vector("weights")
    here = next_line()
    out, _ = theano.scan(lambda r, s, w: s * r + w, samples, T.zeros(2), weights)
    text = text_of(ValueError, lambda: theano.function([samples, weights], out)(ones(2), ones(3)))
    assert "weights" in text and f"add, built at {here}" in text
    assert other.name is None


def test_an_index_out_of_bounds_in_a_late_step():
    i, w = T.ivector("i"), T.vector("w")
    out, _ = theano.scan(
        lambda i, s, w: s + w[i + T.cast(s / f32(1e9), "int32")],
        i,
        T.constant(f32(0)),
        w,
        name="lookup",
    )
    f = theano.function([i, w], out)
    text = text_of(IndexError, lambda: f(np.array([0, 1, 9], "int32"), ones(3)))
    assert "step 2" in text and "lookup" in text


def test_an_initial_state_with_too_few_rows():
    a = T.vector("start")
    out, _ = theano.scan(
        lambda p, q: p + q, None, dict(initial=a, taps=[-3, -1]), n_steps=3, name="fib"
    )
    f = theano.function([a], out)
    assert len(f([1, 2, 3])) == 3
    with pytest.raises((IndexError, ValueError)) as found:
        f([1, 2])
    text = "\n".join([str(found.value), *getattr(found.value, "__notes__", ())])
    assert "start" in text and __file__ in text


# ---- scan_checkpoints ----------------------------------------------------------------------------


def test_scan_checkpoints_has_no_taps():
    with pytest.raises(RuntimeError, match="scan_checkpoints doesn't work with taps."):
        theano.scan_checkpoints(
            lambda p: p, outputs_info=[dict(initial=T.vector("a"), taps=[-2])], n_steps=4
        )
    with pytest.raises(RuntimeError, match="scan_checkpoints doesn't work with taps."):
        theano.scan_checkpoints(lambda p: p, [dict(input=T.vector("a"), taps=[-2, 0])])


def test_scan_checkpoints_needs_a_number_of_steps():
    with pytest.raises(ValueError, match="No information about the number of steps"):
        theano.scan_checkpoints(lambda p: p, outputs_info=T.scalar("a"))


@pytest.mark.parametrize("every", [0, -1])
def test_scan_checkpoints_needs_a_positive_interval(every):
    with pytest.raises(ValueError, match="save_every_N"):
        theano.scan_checkpoints(lambda p: p, T.vector("x"), save_every_N=every)
