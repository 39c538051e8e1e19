"""The grammar of `attention:` expressions: every graph, every error message, and graphs that are written and read
again."""

import own_graph
import pytest
from chopmix.models.attention.grammar import parse_graph, user_defined_graphs
from chopmix.models.attention.graph import (
    And,
    Causal,
    Edges,
    From,
    Graph,
    Not,
    On,
    Or,
    SameItem,
    SameSample,
    Window,
)
from chopmix.models.graphs.neighbourhood import Neighbourhood
from drawn import AXES, INPUTS, graphs
from hypothesis import example, given
from hypothesis import strategies as st
from own_graph import Dilated, OfInput

# beartype checks a random item of a tuple; hypothesis warns of random numbers that it does not control
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

NAMES = ("order", "row", "column", "seconds")
a, b, c = Causal(), SameSample(), SameItem()


def import_graph(reference: str) -> object:
    """A user-defined graph of `own_graph.py` by its reference."""
    module, _, name = reference.partition(":")
    if module != "own_graph" or not hasattr(own_graph, name):
        raise LookupError(f"cannot import {reference!r}")
    return getattr(own_graph, name)


def parse(text: str) -> Graph:
    return parse_graph(text, INPUTS, NAMES, import_graph)


@pytest.mark.parametrize(
    "text, graph",
    [
        ("causal & same_sample", Causal() & SameSample()),
        ("same_sample", SameSample()),
        ("same_sample & (causal | from(image, sound))", SameSample() & (Causal() | From((2, 3)))),
        ("same_sample & window(256)", SameSample() & Window(256)),
        ("same_sample & neighbourhood(1, row, column)", SameSample() & Neighbourhood(1, (1, 2))),
        ("causal(seconds)", Causal(3)),
        ("causal | from(image)", Causal() | From((2,))),
        ("causal & window(256)", Causal() & Window(256)),
    ],
)
def test_graphs_of_the_documentation_can_be_parsed(text, graph):
    assert parse(text) == graph


@pytest.mark.parametrize(
    "text, graph",
    [
        ("causal(order)", Causal(0)),
        ("same_item", SameItem()),
        ("window(2.5, row)", Window(2.5, 1)),
        ("edges(image -> text)", Edges(((2, 1),))),
        ("edges(image->text,text -> sound)", Edges(((2, 1), (1, 3)))),
        ("edges(0 -> 1, 12 -> 3)", Edges(((0, 1), (12, 3)), "slots")),
        ("  same_sample\n  & causal\t", SameSample() & Causal()),
        ("((causal))", Causal()),
        ("!causal", ~Causal()),
        ("! ! causal", ~~Causal()),
        ("causal & !from(image)", Causal() & ~From((2,))),
        ("!(causal | same_item) & same_sample", ~(Causal() | SameItem()) & SameSample()),
        ("own_graph:Dilated(2)", Dilated(2)),
        ("causal & !own_graph:Dilated( 3 )", Causal() & ~Dilated(3)),
        ("own_graph:OfInput(sound, 2, row, column)", OfInput(3, 2.0, (1, 2))),
        ("own_graph:OfInput(text, 0.5)", OfInput(1, 0.5)),
    ],
)
def test_every_graph_can_be_parsed(text, graph):
    assert parse(text) == graph


@pytest.mark.parametrize(
    "text, graph",
    [
        ("causal & same_sample | same_item", Or(And(a, b), c)),
        ("causal | same_sample & same_item", Or(a, And(b, c))),
        ("(causal | same_sample) & same_item", And(Or(a, b), c)),
        ("causal & (same_sample | same_item)", And(a, Or(b, c))),
        ("causal & same_sample & same_item", And(And(a, b), c)),
        ("causal | same_sample | same_item", Or(Or(a, b), c)),
        ("causal & (same_sample & same_item)", And(a, And(b, c))),
    ],
)
def test_and_binds_tighter_than_or_and_both_group_from_the_left(text, graph):
    assert parse(text) == graph


@pytest.mark.parametrize(
    "text, message",
    [
        ("causl", r"attention 'causl', character 1: no graph named 'causl'; .* did you mean 'causal'\?"),
        (
            "causal & zebra",
            r"character 10: no graph named 'zebra'; possible: causal, same_sample, [a-z_, ]*edges, neighbourhood$",
        ),
        ("Causal", "no graph named 'Causal'.* did you mean 'causal'"),
        ("causal(colum)", r"no axis named 'colum'; possible: order, row, column, seconds; did you mean 'column'\?"),
        ("window(3, image)", "no axis named 'image'"),
        ("neighbourhood(1, row, depth)", "no axis named 'depth'"),
        ("causal(3)", "no axis named '3'"),
        ("causal(row -> column)", "no axis named"),
        ("from(imag)", r"no input named 'imag'; possible: text, image, sound; did you mean 'image'\?"),
        ("from(2)", "no input named '2'"),
        ("from(text -> image)", "no input named"),
        ("edges(image -> txt)", "no input named 'txt'.*did you mean 'text'"),
        ("edges(text -> 1)", "no input named '1'"),
        (f"edges(0 -> {'1' * 5000})", "no input named '0'"),
        ("edges(0 -> 1, text -> image)", "no input named '0'"),
        ("edges(0.5 -> 1)", "no input named '0.5'"),
        ("edges(text)", "edges are written source -> reader"),
        ("edges(text -> image, sound)", "edges are written source -> reader"),
        ("edges(text ->)", r"character 14: '\)' where a name or a number is expected"),
        ("(causal", r"character 8: the expression ends where '\)' is expected"),
        ("from(text", r"character 10: the expression ends where '\)' is expected"),
        ("window(3", r"the expression ends where '\)' is expected"),
        ("causal)", r"character 7: '\)' instead of '&', '\|' or the end"),
        ("causal same_sample", "character 8: 'same_sample' instead of '&'"),
        ("causal 3", "character 8: '3' instead of '&'"),
        ("causal &", "character 9: the expression ends where a name is expected"),
        ("| causal", r"character 1: '\|' where a name is expected"),
        ("causal & & causal", "character 10: '&' where a name is expected"),
        ("causal()", r"character 8: '\)' where a name or a number is expected"),
        ("window(3,)", r"'\)' where a name or a number is expected"),
        ("()", r"'\)' where a name is expected"),
        ("3", "'3' where a name is expected"),
        ("", "character 1: the expression ends where a name is expected"),
        ("   ", "the expression ends where a name is expected"),
        ("!", "character 2: the expression ends where a name is expected"),
        ("causal ! same_sample", "character 8: '!' instead of '&'"),
        ("!& causal", "character 2: '&' where a name is expected"),
        ("causal & nowhere:Graph", "character 10: cannot import 'nowhere:Graph'"),
        ("own_graph:dataclass", "'own_graph:dataclass' is not a subclass of chopmix"),
        ("own_graph:Thawed", "'own_graph:Thawed' must be a dataclass with frozen=True"),
        ("own_graph:Dilated", "own_graph:Dilated needs a number for 'step'"),
        ("own_graph:Dilated(row)", "needs a number for 'step'"),
        ("own_graph:Dilated(2, 3)", "does not take 2 arguments"),
        ("own_graph:OfInput(video, 1)", "no input named 'video'"),
        ("own_graph:OfInput", "no input named None"),
        ("own_graph:OfInput(text, 1, depth)", "no axis named 'depth'"),
        ("own_graph:Picky(2)", "character 1: share must be at most 1, not 2.0"),
        ("own_graph:Distance", r"Distance\.edge returned torch\.float32 of shape \(2, 3, 3\); expected: a bool tensor"),
        ("causal & own_graph:OfQueries", r"character 10: OfQueries\.edge returned torch\.bool of shape \(5, 2, 3, 1\)"),
        ("!own_graph:Always", r"Always\.edge returned 'yes'"),
        ("own_graph:Broken", r"own_graph:Broken: IndexError\("),
        ("own_graph:Silent", "own_graph:Silent: NotImplementedError"),
        ("causal + causal", r"character 8: unexpected '\+'"),
        ("window(-3)", "character 8: unexpected '-'"),
        ("causal and same_sample", "'and' instead of '&'"),
        ("window(0)", r"window\(0\) must be more than 0"),
        ("neighbourhood(0.0, row)", r"neighbourhood\(0.0\) must be more than 0"),
        ("window", r"window needs a number first, as in window\(3\)"),
        ("window(row)", "window needs a number first"),
        ("window(1 -> 2)", "window needs a number first"),
        ("window(3, row, column)", "window does not take 3 arguments"),
        ("neighbourhood(row, 1)", "neighbourhood needs a number first"),
        ("neighbourhood(1)", "neighbourhood needs at least one more argument"),
        ("neighbourhood", "neighbourhood needs"),
        ("from", "from needs at least one more argument"),
        ("edges", "edges needs at least one more argument"),
        ("same_sample(1)", "same_sample does not take 1 arguments"),
        ("same_item(row, 1)", "same_item does not take 2 arguments"),
        ("causal(row, column)", "causal does not take 2 arguments"),
    ],
)
def test_errors_name_the_place_and_what_is_possible(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_without_names_only_the_order_is_an_axis():
    assert parse_graph("causal(order)", ["text"]) == Causal()
    with pytest.raises(ValueError, match=r"no axis named 'row'; possible: order$"):
        parse_graph("causal(row)", ["text"])


def write(graph: Graph) -> str:
    """The shortest text of a graph: parentheses only where the grammar would otherwise parse another graph."""

    def call(name: str, *arguments) -> str:
        return f"{name}({', '.join(str(argument) for argument in arguments)})"

    def inside(part: Graph, *looser: type) -> str:
        return f"({write(part)})" if isinstance(part, looser) else write(part)

    match graph:
        case And(left, right):
            return f"{inside(left, Or)} & {inside(right, Or, And)}"
        case Or(left, right):
            return f"{write(left)} | {inside(right, Or)}"
        case Not(part):
            return f"!{inside(part, Or, And)}"
        case Dilated(step):
            return call("own_graph:Dilated", step)
        case Causal(axis):
            return call("causal", AXES[axis]) if axis else "causal"
        case SameSample():
            return "same_sample"
        case SameItem():
            return "same_item"
        case From(inputs):
            return call("from", *(INPUTS[number - 1] for number in inputs))
        case Window(size, axis):
            return call("window", size, AXES[axis])
        case Neighbourhood(radius, axes):
            return call("neighbourhood", radius, *(AXES[axis] for axis in axes))
        case On(axis):
            return call("on", AXES[axis])
        case Edges(pairs, "inputs"):
            return call("edges", *(f"{INPUTS[source - 1]} -> {INPUTS[reader - 1]}" for source, reader in pairs))
        case Edges(pairs, "slots"):
            return call("edges", *(f"{source} -> {reader}" for source, reader in pairs))
    raise AssertionError(f"cannot write {graph}")


@given(graphs())
def test_a_graph_that_is_written_can_be_parsed(graph):
    assert parse_graph(write(graph), INPUTS, AXES, import_graph) == graph


SCRAPS = (
    "causal",
    "same_sample",
    "from",
    "window",
    "neighbourhood",
    "edges",
    "(",
    ")",
    "&",
    "|",
    "!",
    ",",
    "own_graph:Dilated",
    "->",
    "-",
    "3",
    "0",
    "2.5",
    "text",
    "image",
    "row",
    "order",
    " ",
    "\n",
    "name",
    "number",
    "mark",
    "end",
    "the end",
    "%",
    "é",
    "\x00",
)


@given(st.lists(st.sampled_from(SCRAPS), max_size=12).map(" ".join) | st.text(max_size=20))
@example("number")
@example("window(number)")
@example("window(the end)")
def test_any_text_is_a_graph_or_raises_a_value_error(text):
    """For any text: a graph, or a ValueError that quotes the text."""
    try:
        result = parse(text)
    except ValueError as error:
        result = str(error)
    assert isinstance(result, Graph) or result.startswith(f"attention {text!r}, character ")


def test_only_a_yaml_can_name_user_defined_graphs():
    with pytest.raises(
        ValueError, match="'own_graph:Dilated' is user-defined code; name it in a YAML, or pass the Graph"
    ):
        parse_graph("causal & own_graph:Dilated(2)")
    assert user_defined_graphs("causal & (a.b:C(2) | !d:E) & window(3)") == ["a.b:C", "d:E"]


@pytest.mark.parametrize("size", ["nan", "inf", "Infinity", "9" * 400])
def test_a_size_must_be_a_finite_number(size):
    with pytest.raises(ValueError, match="window"):
        parse(f"window({size})")


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="attention"):
        parse("(" * 5000 + "causal" + ")" * 5000)
    with pytest.raises(ValueError, match="attention"):
        parse("!" * 5000 + "causal")


def test_an_expression_with_too_many_operators_is_refused():
    """Thousands of operators raised a RecursionError."""
    parse_graph(" & ".join(["causal"] * 201))
    with pytest.raises(ValueError, match="it has 2,999 operators; possible: up to 200"):
        parse_graph(" & ".join(["causal"] * 3000))
