"""Sources: which rows of which dataset, and what is refused."""

import numpy as np
import pytest
from label2label.errors import UserError
from label2label.training.data import name_groups, open_sources
from label2label.training.recipe import Recipe, Source

from .conftest import RACES


def test_a_path_a_list_of_paths_and_mappings_are_read():
    assert Recipe(data="a").data == [Source("a")]
    recipe = Recipe(data=["a", {"path": "b", "where": {"race": "Asian"}, "share": 0.4}])
    assert recipe.data == [Source("a"), Source("b", {"race": "Asian"}, share=0.4)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "names no dataset"),
        ([3], "a path or a mapping with a path"),
        ([{"where": {}}], "a path or a mapping with a path"),
        ([{"path": "a", "were": 1}], "unknown key were"),
        ([{"path": "a", "share": 1.5}], "share must be in 0..1"),
        ([{"path": "a", "weight": -1}], "weight must be in 0..1"),
        ([{"path": "a", "limit": -1}], "limit must be in 0"),
    ],
)
def test_what_is_no_source_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Recipe(data=data)


def test_a_condition_keeps_matching_rows_of_every_split(grouped_folder):
    sources = [Source(str(grouped_folder), {"race": ["Asian", "Indian"], "gender": "Male"})]
    for split in ("train", "validation"):
        rows, _ = open_sources(sources, split, seed=0)
        assert set(rows["race"]) == {"Asian", "Indian"}
        assert set(rows["gender"]) == {"Male"}


def test_a_smaller_limit_keeps_some_of_a_larger_ones_rows(grouped_folder):
    def kept(limit, seed=0):
        source = Source(str(grouped_folder), {"race": "Asian"}, limit=limit)
        return set(open_sources([source], "train", seed)[0]["identity"])

    assert len(kept(3)) == 3
    assert kept(3) < kept(6)
    assert kept(3, seed=1) != kept(3)
    validation, _ = open_sources([Source(str(grouped_folder), limit=1)], "validation", 0)
    assert len(validation) > 1


def test_columns_that_a_source_lacks_are_null(dataset_folder, grouped_folder):
    rows, source_of = open_sources(
        [Source(str(dataset_folder)), Source(str(grouped_folder), {"race": "Black"})], "train", 0
    )
    races = np.array(rows["race"], object)
    assert set(races[source_of == 0]) == {None}
    assert set(races[source_of == 1]) == {"Black"}
    names = name_groups(
        open_sources([Source(str(dataset_folder)), Source(str(grouped_folder))], "train", 0)[0],
        ["race", "gender"],
        "both",
    )
    assert set(names[:40]) == {None}
    assert set(names[40:]) == {f"{r}, {g}" for r in RACES for g in ("Female", "Male")}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"race": "Martian"}, "no row .* has race = Martian; its values of race: Asian, Black"),
        ({"planet": "Mars"}, "no column 'planet'"),
        ({"race": "Asian", "identity": "1"}, "race = Asian and identity = 1"),
    ],
)
def test_a_condition_that_no_row_meets_is_refused(grouped_folder, where, message):
    with pytest.raises(UserError, match=message):
        open_sources([Source(str(grouped_folder), where)], "train", 0)


def test_a_split_that_is_not_there_is_named(grouped_folder):
    with pytest.raises(UserError, match="has no split 'test': it has train, validation"):
        open_sources([Source(str(grouped_folder))], "test", 0)


def test_one_group_is_no_groups(grouped_folder, dataset_folder):
    rows, _ = open_sources([Source(str(grouped_folder), {"race": "Asian"})], "train", 0)
    with pytest.raises(UserError, match="at least two groups; found Asian"):
        name_groups(rows, ["race"], "data")
