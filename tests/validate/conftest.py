import pytest

from indexed_images import IndexedImages
from r2m.validate.report import compose, results_of
from r2m.validate.rows import examine


@pytest.fixture
def drawn(tmp_path):
    return IndexedImages(tmp_path)


def rows_of(drawn, contents):
    return examine(drawn.write(), drawn.root, contents=contents, cache=drawn.cache, threads=2)


@pytest.fixture
def checked():
    """Return a function that gives the results of all checks of a drawn data set that found something."""

    def results(drawn, contents=True, allow_leakage=False):
        made = results_of(rows_of(drawn, contents), contents, allow_leakage)
        return [result for result in made if result.count]

    return results


@pytest.fixture
def validated():
    """Return a function that gives the whole report on a drawn data set."""

    def report(drawn, contents=True):
        names = str(drawn.index), str(drawn.root)
        return compose(rows_of(drawn, contents), *names, has_contents=contents, allow_leakage=False)

    return report
