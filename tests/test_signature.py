"""Gufunc signatures: what is read, what is refused, and how parameters fit or do not."""

import pytest
import torch

import argminlayer as al
from argminlayer._signature import Signature


def refused(function, *arguments, **keywords):
    """Return the text of the error that a call raises."""
    with pytest.raises(al.SignatureError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def zeros(*shapes):
    return [torch.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        ("(n)->(n)", (("n",),), (("n",),)),
        ("(m,n),(m)->(n)", (("m", "n"), ("m",)), (("n",),)),
        ("(),(n)->(3)", ((), ("n",)), ((3,),)),
        ("(n)->(n),(k)", (("n",),), (("n",), ("k",))),
        ("->(n)", (), (("n",),)),
        ("()->()", ((),), ((),)),
        ("(2,2)->(2,2)", ((2, 2),), ((2, 2),)),
        (" ( rows , cols ) -> ( cols ) ", (("rows", "cols"),), (("cols",),)),
    ],
)
def test_a_signature_names_the_core_dimensions_of_parameters_and_variables(text, inputs, outputs):
    signature = Signature.parse(text)
    assert (signature.inputs, signature.outputs) == (inputs, outputs)


@pytest.mark.parametrize("text", ["(m,n),(m)->(n)", "(),(n)->(3)", "->(n)", "(n)->(n),(k)"])
def test_a_signature_is_written_as_it_was_read(text):
    assert str(Signature.parse(text)) == text
    assert Signature.parse(str(Signature.parse(text))) == Signature.parse(text)


@pytest.mark.parametrize(
    "text", ["", "->", "n->n", "(n)", "(n)->", "(n)=>(n)", "(n)->(n)->(n)", "(n)(m)->(n)", "(n),->(n)", "((n))->(n)"]
)
def test_a_text_that_is_no_signature_is_shown_the_form_of_one(text):
    message = refused(al.Problem, lambda u, x: u.sum(), text)
    assert message.startswith(f"the signature {text!r} is not of the form '(m,n),(m)->(n)'")
    assert "a scalar is '()', a fixed size an integer such as '(3)'" in message


@pytest.mark.parametrize("dimension", ["n-1", "2n", "-1", "n*m", "1.5", "²"])
def test_a_dimension_that_is_neither_name_nor_integer_is_named(dimension):
    message = refused(al.Problem, lambda u, x: u.sum(), f"({dimension})->(n)")
    assert message.startswith(f"{dimension!r} in the signature '({dimension})->(n)' is neither a name nor an integer")
    assert "(m,n),(3)->(n)" in message


def test_two_names_without_a_comma_are_not_joined_to_one():
    assert "n m" in refused(al.Problem, lambda u, x: u.sum(), "(n m)->(n)")


@pytest.mark.parametrize("value", [None, 5, ("n", "n")])
def test_a_signature_that_is_no_text_is_refused(value):
    assert repr(value) in refused(al.Problem, lambda u, x: u.sum(), value)


def test_sizes_and_batch_are_read_from_the_parameters():
    sizes, batch = Signature.parse("(m,n),(m)->(n)").match(zeros((5, 1, 3, 2), (4, 3)), ("A", "b"))
    assert sizes == {"m": 3, "n": 2}
    assert batch == (5, 4)


def test_without_parameters_there_is_no_size_and_no_batch():
    assert Signature.parse("->(n)").match([], ()) == ({}, torch.Size())


def test_a_variable_whose_dimension_no_parameter_has_is_left_open():
    shapes = Signature.parse("(n)->(n,2),(k)").variable_shapes({"n": 3})
    assert shapes == (torch.Size([3, 2]), None)


LEAST_SQUARES = al.Problem(lambda u, A, b: (A @ u - b).square().sum(), "(m,n),(m)->(n)")


def test_two_sizes_of_one_dimension_are_named_with_both_parameters():
    message = refused(al.solve, LEAST_SQUARES, *zeros((3, 2), (4,)))
    for piece in ("'b'", "(4,)", "dimension 'm' is 4", "'A'", "m = 3", "(m,n),(m)->(n)"):
        assert piece in message


def test_another_size_than_the_fixed_one_is_named_with_both_sizes():
    problem = al.Problem(lambda u, x: (u - x).square().sum(), "(3)->(3)")
    message = refused(al.solve, problem, torch.zeros(7, 2))
    for piece in ("'x'", "(7, 2)", "has size 2 instead of 3", "(3)->(3)"):
        assert piece in message


def test_too_few_dimensions_are_counted_and_the_batch_is_explained():
    message = refused(al.solve, LEAST_SQUARES, *zeros((3,), (3,)))
    for piece in ("'A'", "shape (3,)", "2 core dimensions (m,n)", "leading dimensions before them are the batch"):
        assert piece in message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_parameters_is_counted_and_the_right_ones_are_listed(count):
    message = refused(al.solve, LEAST_SQUARES, *zeros(*[(2, 2)] * count))
    assert message.startswith(f"{count} parameter")
    for piece in ("(m,n),(m)->(n) has 2", "A", "b"):
        assert piece in message


def test_leading_dimensions_that_do_not_broadcast_are_listed():
    message = refused(al.solve, LEAST_SQUARES, *zeros((5, 3, 2), (4, 3)))
    for piece in ("leading (batch) dimensions", "do not broadcast", "'A'", "(5,)", "'b'", "(4,)"):
        assert piece in message


def test_parameters_without_fitting_argument_names_are_numbered():
    problem = al.Problem(lambda u, *x: (u - x[0]).square().sum() + x[1].sum(), "(n),(n)->(n)")
    message = refused(al.solve, problem, *zeros((3,), (2,)))
    assert "parameter 1 " in message
    assert "parameter 0 " in message
