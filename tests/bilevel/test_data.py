"""Reading data sets, and what is said about those that cannot be used."""

import sys

import numpy as np
import pytest

import argminlayer as al
from argminlayer_bilevel._data import load, load_all


@pytest.fixture
def csv(tmp_path):
    """Return a function that writes a CSV file and returns its path."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refused(source, target, pattern):
    with pytest.raises(al.ExperimentError, match=pattern):
        load(source, target)


@pytest.mark.parametrize(("name", "shape", "mu"), [("iris", (150, 4), 345.0), ("diabetes", (442, 10), 210.147)])
def test_built_in_data_is_standardised_and_comes_with_the_paper_s_figures(name, shape, mu):
    data = load(name, None)
    assert data.X.shape == shape
    np.testing.assert_allclose(data.X.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(data.X.std(axis=0), 1.0)
    assert data.published.mu == mu


def test_a_csv_file_is_read_and_its_columns_are_standardised(csv):
    data = load(csv("a, y, flag\n1,10,True\n2,20,False\n3,25,True\n", "my table.csv"), "y")
    assert data.name == "my-table"
    assert data.y.tolist() == [10.0, 20.0, 25.0]
    np.testing.assert_allclose(data.X[:, 0], [-np.sqrt(1.5), 0.0, np.sqrt(1.5)])
    assert data.X.shape == (3, 2)
    assert data.per_sample
    assert data.published is None


def test_an_unknown_data_set_is_an_error_that_offers_near_matches():
    refused("irsi", None, r"there is no data set 'irsi'\. Did you mean 'iris'\? Known are iris and diabetes")


def test_a_missing_file_is_an_error(tmp_path):
    refused(str(tmp_path / "none.csv"), "y", r"cannot read .*none\.csv: No such file or directory")


def test_a_folder_is_an_error(tmp_path):
    refused(str(tmp_path), "y", r"cannot read .*: Is a directory")


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    path = tmp_path / "image.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    refused(str(path), "y", r"image\.csv is not a CSV file: .* Expected: UTF-8 text, a header line")


def test_rows_of_uneven_length_are_an_error(csv):
    refused(csv("a,y\n1,2\n1,2,3,4\n"), "y", r"is not a CSV file: .*line 3, saw 4")


def test_rows_longer_than_the_header_are_an_error(csv):
    refused(
        csv("a,y\n1,2,3\n4,5,6\n"), "y", r"the rows of .* have more fields than its header; every column needs a name"
    )


def test_commas_at_the_ends_of_rows_are_harmless(csv):
    assert load(csv("a,y\n1,2,\n3,5,\n"), "y").y.tolist() == [2.0, 5.0]


def test_a_column_without_a_name_is_an_error_because_it_may_number_the_rows(csv):
    refused(csv(",a,y\n0,1,2\n1,4,3\n"), "y", r"column 1 of .* has no name in the header; name it, or remove it")


def test_an_empty_file_is_an_error(csv):
    refused(csv(""), "y", r"table\.csv is empty; it needs a header line and rows of numbers")


def test_a_file_without_rows_is_an_error(csv):
    refused(csv("a,y\n"), "y", r"has a header but no rows")


def test_a_csv_file_without_a_target_is_an_error_that_lists_its_columns(csv):
    refused(csv("a,y\n1,2\n"), None, r"needs a target: name the column to predict, one of 'a', 'y'")


def test_a_missing_column_is_an_error_that_offers_near_matches(csv):
    path = csv("height,weight\n1,2\n")
    refused(
        path, "wieght", r"has no column 'wieght' to predict\. Did you mean 'weight'.*Its columns are 'height', 'weight'"
    )


def test_a_long_list_of_columns_is_cut_short(csv):
    refused(csv("a,b,c,d,e,f,g\n" + "1," * 6 + "1\n"), "y", r"'a', 'b', 'c', 'd', 'e' and 2 more\.$")


def test_other_separators_than_commas_are_pointed_out(csv):
    refused(csv("a;y\n1;2\n"), "y", r"Its columns are 'a;y'\. Fields must be separated by commas")


def test_a_file_with_nothing_but_the_target_is_an_error(csv):
    refused(csv("y\n1\n2\n"), "y", r"no column besides the target 'y'")


def test_columns_that_are_not_numeric_are_named_with_a_cell(csv):
    path = csv("sex,age,city,y\nF,1,Rome,1\nM,2,Oslo,2\n")
    refused(
        path, "y", r"columns 'sex', 'city' of .* are not numeric: row 1 of 'sex' holds 'F'\. Encode .* remove these"
    )
    path = csv("a,b,y\n1,2,1\n?,3,2\n")
    refused(path, "y", r"column 'a' of .* is not numeric: row 2 of 'a' holds '\?'\. .* remove the column from the file")


def test_a_target_that_is_not_numeric_is_an_error(csv):
    path = csv("a,species\n1,setosa\n2,virginica\n")
    refused(path, "species", r"target column 'species' .* is not numeric: row 1 of 'species' holds 'setosa'.*0, 1, 2")


def test_missing_cells_are_named_by_row_and_column(csv):
    refused(csv("a,b,y\n1,2,3\n2,,4\n3,4,\n"), "y", r"has 2 missing or infinite cells; the first is in row 2 .* 'b'")
    refused(csv("a,y\n1,3\n2,4\n3,inf\n"), "y", r"has 1 missing or infinite cell; the first is in row 3 .* 'y'")


def test_a_constant_column_is_named(csv):
    refused(csv("a,b,y\n0.1,1,3\n0.1,2,4\n0.1,3,5\n"), "y", r"column 'a' of .* is constant, so cannot be standardised")
    refused(csv("a,b,c,y\n1,2,1,3\n1,2,2,4\n"), "y", r"columns 'a', 'b' of .* are constant, so cannot be standardised")


def test_a_constant_target_is_an_error(csv):
    refused(csv("a,y\n1,3\n2,3\n"), "y", r"the target column 'y' of .* is constant; there is nothing to fit")


def test_two_data_sets_of_one_name_are_an_error():
    with pytest.raises(al.ExperimentError, match=r"two data sets are called 'iris'; name each once"):
        load_all(("iris", "iris"), None)


@pytest.mark.parametrize("module", ["sklearn", "pandas"])
def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, csv, module):
    path = csv("a,y\n1,3\n2,4\n")
    monkeypatch.setitem(sys.modules, module, None)
    package = {"sklearn": "scikit-learn"}.get(module, module)
    source = path if module == "pandas" else "iris"
    refused(source, "y", rf"needs {package}, which is not installed: pip install 'argminlayer\[bilevel\]'")


def test_a_missing_package_that_is_not_ours_is_not_blamed_on_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr("argminlayer_bilevel._errors._PACKAGES", {})
    with pytest.raises(ModuleNotFoundError, match="sklearn"):
        load("iris", None)
