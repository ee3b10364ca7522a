import pytest

from r2m.errors import R2MError
from r2m.options import combinations, with_dotted


def test_values_are_put_in_and_the_original_stays():
    options = {"real": {"space": "task"}, "norm_match": "model"}
    result = with_dotted(options, {"real.space": "matrix", "scale.relative": 2, "norm_match": "none"})
    assert result == {"real": {"space": "matrix"}, "norm_match": "none", "scale": {"relative": 2}}
    assert options == {"real": {"space": "task"}, "norm_match": "model"}


def test_an_alternative_takes_the_place_of_another():
    options = {"residual": {"rank": {"energy": 0.9}, "vectors": "keep"}, "scale": {"absolute": 1.0}}
    result = with_dotted(options, {"residual.rank.ratio": 0.1, "scale.relative": 2})
    assert result == {"residual": {"rank": {"ratio": 0.1}, "vectors": "keep"}, "scale": {"relative": 2}}


def test_a_mapping_as_value():
    result = with_dotted({"residual": {"rank": {"energy": 0.9}}}, {"residual.rank": {"ratio": 0.1}})
    assert result == {"residual": {"rank": {"ratio": 0.1}}}


@pytest.mark.parametrize("name", ["scale.relative", "scale.a.b"])
def test_a_path_through_a_value(name):
    with pytest.raises(R2MError, match=rf"{name}: expected a mapping under 'scale', got 3"):
        with_dotted({"scale": 3}, {name: 1})


def test_combinations_of_a_grid():
    assert combinations({"a": [1, 2], "b.c": [3, 4]}) == [
        {"a": 1, "b.c": 3},
        {"a": 1, "b.c": 4},
        {"a": 2, "b.c": 3},
        {"a": 2, "b.c": 4},
    ]
    assert combinations({}) == [{}]
