import pytest
from indexed_images import IndexedImages

from r2m.validate.report import compose
from r2m.validate.rows import examine


@pytest.fixture
def drawn(tmp_path):
    return IndexedImages(tmp_path)


@pytest.fixture
def validated():
    """Return a function that gives the report on a drawn data set."""

    def report(drawn, contents=True, allow_leakage=False):
        frame = examine(drawn.write(), drawn.root, contents=contents, cache=drawn.cache, threads=2)
        return compose(
            frame, str(drawn.index), str(drawn.root), has_contents=contents, allow_leakage=allow_leakage
        )

    return report
