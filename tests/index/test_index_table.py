import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_trees import df40, video
from r2m.errors import R2MError
from r2m.index import build, table


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = df40(tmp_path_factory.mktemp("tree") / "DF40")
    path = root.parent / "data/df40.parquet"
    build.write(build.build(build.Request(paths=[root])), path)
    return path


def test_columns_types_and_metadata(index):
    rows = table.read(index)
    assert rows.schema.names == list(table.COLUMNS)
    assert rows.schema.types == table.SCHEMA.types
    said = table.metadata(index)
    assert said["version"] == 1
    assert said["root"] == str(index.parents[1] / "DF40")
    assert said["layouts"] == ["df40"]
    assert said["seed"] == 0
    assert sum(said["shares"].values()) == pytest.approx(1)


def test_slices(index):
    rows = table.slice_of(index, domain="ff", method="simswap")
    assert rows.num_rows == 12
    assert set(rows["method"].to_pylist()) == {"simswap"}
    assert table.slice_of(index, method="real", columns=["path"]).column_names == ["path"]
    assert table.slice_of(index, domain="none").num_rows == 0
    assert table.slice_of(index).num_rows == table.read(index).num_rows


def test_a_digest_does_not_depend_on_encoding_and_chunks(index):
    rows = table.slice_of(index, method="simswap")
    again = pa.table({name: rows[name].to_pylist() for name in rows.column_names}).cast(
        pa.schema(
            [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in rows.schema]
        )
    )
    cut = pa.concat_tables([rows.slice(0, 5), rows.slice(5)])
    digests = {table.slice_digest(each) for each in (rows, again, cut, rows.combine_chunks())}
    assert len(digests) == 1
    assert len(digests.pop()) == 16


@given(
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.integers(-5, 5)), max_size=5),
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.integers(-5, 5)), max_size=5),
)
def test_tables_with_one_digest_are_equal(first, second):
    schema = pa.schema([("path", pa.string()), ("frame", pa.int32())])
    one, other = (
        pa.table([[text for text, _ in rows], [number for _, number in rows]], schema=schema)
        for rows in (first, second)
    )
    assert (table.slice_digest(one) == table.slice_digest(other)) == (first == second)


@pytest.mark.parametrize("column", ["path", "split", "size", "mask"])
def test_every_column_counts(index, column):
    rows = table.slice_of(index, method="simswap")
    values = rows[column].to_pylist()
    values[-1] = 7 if column == "size" else "other"
    position = rows.column_names.index(column)
    changed = rows.set_column(
        position,
        column,
        pa.array(
            values,
            rows[column].type.value_type if pa.types.is_dictionary(rows[column].type) else rows[column].type,
        ),
    )
    assert table.slice_digest(changed) != table.slice_digest(rows)


def test_a_slice_keeps_its_digest_when_a_method_is_added(tmp_path):
    root = tmp_path / "DF40"
    for number in range(0, 40, 2):
        first, second = f"{number:03}", f"{number + 1:03}"
        for method in ("simswap", "MRAA"):
            video(root, f"{method}/ff/frames/{first}_{second}")
            video(root, f"{method}/ff/frames/{second}_{first}")
        video(root, f"simswap/ff/real/{first}")

    def digests(name):
        path = tmp_path / name
        build.write(build.build(build.Request(paths=[root])), path)
        slices = {"simswap": ("ff", "simswap"), "mraa": ("ff", "mraa"), "real": ("ff", "real")}
        return {
            key: table.slice_digest(table.slice_of(path, domain=domain, method=method))
            for key, (domain, method) in slices.items()
        }

    before = digests("before.parquet")
    for number in range(0, 40, 2):
        video(root, f"StyleGAN2/ff/{number:03}", ["seed1.png"])
        video(root, f"blendface/ff/frames/{number:03}_{number + 3:03}")
    assert digests("after.parquet") == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such index; `r2m index PATH --out"),
        (b"no parquet", "expected an index in Parquet"),
    ],
)
def test_a_file_that_is_no_index(tmp_path, content, message):
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(R2MError, match=message):
        table.read(path)


def test_another_table_and_another_version_are_refused(tmp_path, index):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(R2MError, match="expected an index that `r2m index` made"):
        table.slice_of(path, domain="ff")
    with pytest.raises(R2MError, match="expected the columns and types of an index"):
        table.write(pa.table({"a": [1]}), {}, path)
    rows = table.read(index).replace_schema_metadata({b"r2m": b'{"version": 2}'})
    pq.write_table(rows, path)
    with pytest.raises(R2MError, match="expected an index of version 1, got 2"):
        table.metadata(path)


def test_a_wrong_column_is_told_with_the_nearest(index):
    with pytest.raises(R2MError, match="no column 'fram'; did you mean 'frame'"):
        table.read(index, ["path", "fram"])
