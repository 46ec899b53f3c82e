"""Graphs as text and drawings."""

from __future__ import annotations

import io
import re
import shutil
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import printing
from gpuscan import tensor as T
from gpuscan.printing import debugprint, pprint, pydotprint, to_dot, to_mermaid

x, y, z = T.matrices("x", "y", "z")


def text(obj: Any, **options: Any) -> str:
    return str(debugprint(obj, file="str", **options))


def loop(name: str = "rnn") -> Any:
    """A recurrence over the rows of x."""
    W, h0 = T.matrix("W"), T.vector("h0")
    hs, _ = gpuscan.scan(
        lambda row, h, W: T.tanh(T.dot(row, W) + h), sequences=x, outputs_info=h0,
        non_sequences=W, name=name,
    )  # fmt: skip
    return hs


# ---- debugprint -----------------------------------------------------------------------------


def test_debugprint_is_theanos_tree() -> None:
    assert text(T.exp(x + T.dot(y, z))) == (
        "Elemwise{exp} [id A] ''\n"
        " |Elemwise{add} [id B] ''\n"
        "   |x [id C]\n"
        "   |Dot [id D] ''\n"
        "     |y [id E]\n"
        "     |z [id F]\n"
    )


def test_lines_lead_to_later_operands() -> None:
    assert text((x + y) * z) == (
        "Elemwise{mul} [id A] ''\n"
        " |Elemwise{add} [id B] ''\n"
        " | |x [id C]\n"
        " | |y [id D]\n"
        " |z [id E]\n"
    )


def test_a_node_met_again_is_not_opened_again() -> None:
    s = T.exp(x)
    assert text(s * s).count("|x ") == 1
    assert text(s * s).count("Elemwise{exp} [id B]") == 2


def test_types_are_printed_on_request() -> None:
    assert "x [id B] <float32 matrix>" in text(T.exp(x), print_type=True)


def test_names_are_printed() -> None:
    s = T.exp(x)
    s.name = "activation"
    try:
        assert text(s).startswith("Elemwise{exp} [id A] 'activation'")
        assert text(s + y, stop_on_name=True).count("x [id") == 0
    finally:
        s.name = None


def test_depth_limits_the_levels() -> None:
    assert text(T.exp(x + y), depth=2).splitlines() == [
        "Elemwise{exp} [id A] ''", " |Elemwise{add} [id B] ''",
    ]  # fmt: skip


@pytest.mark.parametrize(("ids", "first"), [
    ("CHAR", "exp} [id A]"), ("int", "exp} [id 0]"), ("", "exp} ''"),
])  # fmt: skip
def test_kinds_of_ids(ids: str, first: str) -> None:
    assert first in text(T.exp(x), ids=ids)


def test_unknown_kind_of_ids_is_an_error() -> None:
    with pytest.raises(ValueError, match="CHAR"):
        text(x, ids="roman")


def test_letters_go_on_after_z() -> None:
    long = x
    for _ in range(30):
        long = T.exp(long)
    assert "[id Z]" in text(long)
    assert "[id BA]" in text(long)


def test_constants_show_their_value() -> None:
    assert "TensorConstant{2.0}" in text(T.scalar() * T.constant(2.0))


def test_large_constants_show_their_shape() -> None:
    assert "shape (3, 4)" in text(T.constant(np.zeros((3, 4))))


def test_several_outputs_share_ids() -> None:
    lines = text([x + y, x * y]).splitlines()
    assert lines[1] == lines[4] == " |x [id B]"


def test_a_stream_gets_the_text() -> None:
    stream = io.StringIO()
    debugprint(x, file=stream)
    assert stream.getvalue() == text(x)


def test_standard_output_is_the_default(capsys: Any) -> None:
    debugprint(x + y)
    assert capsys.readouterr().out == text(x + y)


def test_a_function_shows_its_outputs() -> None:
    f = gpuscan.function([x], T.exp(x))
    assert text(f) == text(f.maker.fgraph.outputs)
    assert "exp" in text(f)


def test_a_node_shows_its_variable() -> None:
    assert text((x + y).owner) == text(x + y)


def test_what_is_no_graph_is_an_error() -> None:
    with pytest.raises(TypeError, match="can't print a int"):
        debugprint(3)


def test_deep_graphs_cost_no_recursion() -> None:
    deep = x
    for i in range(3000):
        deep = T.sin(deep) if i % 2 else T.cos(deep)
    assert len(text(deep, depth=50).splitlines()) == 50
    assert pprint(deep).count("(") == 3000
    assert to_dot(deep).count("->") == 3001


# ---- loops ----------------------------------------------------------------------------------


def test_bodies_follow_the_main_graph() -> None:
    main, inner = text(loop()).split("Inner graphs of the scan ops:")
    assert "tanh" not in main
    assert "Scan{rnn} [id A]" in inner
    assert re.search(r"^ >Elemwise\{tanh\}", inner, re.MULTILINE)


def test_a_graph_without_loops_has_no_inner_graphs() -> None:
    assert "Inner graphs" not in text(x + y)


def test_parameters_of_a_body_point_to_the_operands() -> None:
    printed = text(loop())
    (W,) = re.findall(r"\|W (\[id \w+\])", printed)
    assert re.search(r"\*2-<float32 matrix> \[id \w+\] -> " + re.escape(W), printed)


def test_nested_loops_are_printed_after_one_another() -> None:
    def inner(row: Any) -> Any:
        return gpuscan.scan(lambda a: a * 2, sequences=row, name="inner")[0].sum()

    outer, _ = gpuscan.scan(inner, sequences=x, name="outer")
    printed = text(outer).split("Inner graphs of the scan ops:")[1]
    assert printed.index("\nScan{outer}") < printed.index("\nScan{inner}")


def test_a_subgraph_that_two_bodies_share_is_opened_in_both() -> None:
    first, _ = gpuscan.scan(lambda r: T.exp(r) + 1, sequences=x, name="one")
    second, _ = gpuscan.scan(lambda r: T.exp(r) * 3, sequences=y, name="two")
    assert text([first, second]).count("-> ") == 2


# ---- pprint ---------------------------------------------------------------------------------

a, b, c = T.scalars("a", "b", "c")
FORMULAS = {
    "a + b * c": a + b * c, "(a + b) * c": (a + b) * c, "a - (b - c)": a - (b - c),
    "a - b - c": a - b - c, "a / (b * c)": a / (b * c), "-a ** b": -(a**b),
    "(-a) ** b": (-a) ** b, "a ** b ** c": a ** (b**c), "(a ** b) ** c": (a**b) ** c,
    "a < b + c": a < b + c, "exp(a + b)": T.exp(a + b), "x @ y + z": T.dot(x, y) + z,
    "x.T @ y": T.dot(x.T, y), "(x + y).T": (x + y).T, "x.shape[0]": x.shape[0],
    "[x.shape[0], x.shape[1]]": x.shape, "sum(x)": x.sum(), "sum(x, axis=[1])": x.sum(axis=1),
    "x[-1]": x[-1], "x * a": x * a, "a * -1.0": a * T.constant(np.float32(-1)),
    "switch(a < b, a, b)": T.switch(a < b, a, b),
}  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS)
def test_pprint(formula: str) -> None:
    assert pprint(FORMULAS[formula]) == formula


def test_pprint_of_several_outputs() -> None:
    assert pprint([a, a + b]) == "a, a + b"


def test_long_formulas_that_are_shared_are_named() -> None:
    v = x
    for _ in range(40):
        v = T.exp(v) * T.exp(v)
    printed = pprint(v)
    assert len(printed) < 20_000
    assert "\nwhere t0 = " in printed


# ---- drawings -------------------------------------------------------------------------------


def test_dot_has_a_node_and_an_edge_for_each_operand() -> None:
    drawn = to_dot(x + y)
    assert drawn.startswith("digraph")
    assert re.findall(r'label="(x|y|add)"', drawn) == ["x", "y", "add"]
    assert drawn.count("->") == 3  # two operands and the output


def test_dot_draws_a_body_as_a_cluster() -> None:
    drawn = to_dot(loop())
    main, cluster = drawn.split("subgraph cluster_1")
    assert "tanh" not in main
    assert "tanh" in cluster


def test_dot_escapes_names() -> None:
    assert r'label="say \"hi\" \\"' in to_dot(T.vector('say "hi" \\'))


@pytest.mark.parametrize("draw", [to_dot, to_mermaid])
def test_every_edge_ends_at_a_node(draw: Any) -> None:
    drawn = draw(loop())
    ends = set(re.findall(r"\b(g\d+_n\d+)", " ".join(re.findall(r".*(?:->|-->).*", drawn))))
    nodes = set(re.findall(r"^ *(g\d+_n\d+) ?[\[(]", drawn, re.MULTILINE))
    assert ends == nodes


def test_mermaid_draws_a_body_as_a_subgraph() -> None:
    drawn = to_mermaid(loop())
    assert drawn.startswith("flowchart TD\n")
    main, body = drawn.split("subgraph body1")
    assert "tanh" not in main
    assert "tanh" in body
    assert body.rstrip().endswith("end")


def test_mermaid_escapes_names() -> None:
    assert '(["say #quot;hi#quot;"])' in to_mermaid(T.vector('say "hi"'))


def test_pydotprint_writes_dot_text(tmp_path: Any, capsys: Any) -> None:
    f = gpuscan.function([x], T.exp(x))
    pydotprint(f, str(tmp_path / "f.dot"))
    assert (tmp_path / "f.dot").read_text() == to_dot(f)
    assert "f.dot" in capsys.readouterr().out


def test_pydotprint_says_that_graphviz_is_missing(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="Graphviz"):
        pydotprint(x + y, str(tmp_path / "f.svg"))


def test_pydotprint_hands_the_text_to_graphviz(tmp_path: Any, monkeypatch: Any) -> None:
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$1" > "$3"\ncat >> "$3"\n')
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    pydotprint(x + y, str(tmp_path / "f"), format="svg", print_output_file=False)
    assert (tmp_path / "f.svg").read_text() == "-Tsvg\n" + to_dot(x + y)


def test_pydotprint_tells_what_graphviz_said(tmp_path: Any, monkeypatch: Any) -> None:
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no such format >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    with pytest.raises(RuntimeError, match="no such format"):
        pydotprint(x + y, str(tmp_path / "f.svg"))


# ---- Print ----------------------------------------------------------------------------------


def test_print_is_exported_and_passes_its_value(capsys: Any) -> None:
    v = T.dvector()
    got = gpuscan.function([v], printing.Print("here")(v) * 2)([1.0, 2.0])
    np.testing.assert_array_equal(got, [2, 4])
    assert "here" in capsys.readouterr().out
