from pathlib import Path

import pytest

from r2m.errors import R2MError
from r2m.report.runtimes import read_benchmarks, runtime_table
from r2m.report.stages import runtimes

Files = dict[str, dict[str, Path]]
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path: Path, seconds: object, cpu: object, peak: object) -> None:
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{peak}\t1\t1\t1\t0\t0\t50\t{cpu}\n")


@pytest.fixture
def benchmarks(tmp_path: Path) -> Files:
    """Stage → job → its benchmark file, of which one is not there."""
    benchmark(tmp_path / "orl.tsv", 0.2, "NA", "NA")
    benchmark(tmp_path / "base.tsv", 6, 5, 2000.4)
    benchmark(tmp_path / "probe.tsv", 2.5, 2.26, 800)
    benchmark(tmp_path / "r2m.tsv", 4, 3, 900)
    return {
        "source": {"orl": tmp_path / "orl.tsv"},
        "base": {"": tmp_path / "base.tsv"},
        "score": {
            "base/base": tmp_path / "probe.tsv",
            "merge/r2m": tmp_path / "r2m.tsv",
            "merge/ties": tmp_path / "from DVC.tsv",
        },
    }


def test_jobs_of_a_stage_are_summed(benchmarks: Files, tmp_path: Path) -> None:
    runtimes(benchmarks=benchmarks, out=tmp_path / "runtimes.csv")
    assert (tmp_path / "runtimes.csv").read_text() == (
        "stage,jobs,cpu_seconds,wall_seconds,peak_mib\n"
        "source,1,0.0,0.2,\n"
        "base,1,5.0,6.0,2000\n"
        "score,2,5.3,6.5,900\n"
        "all,4,10.3,12.7,2000\n"
    )


def test_jobs_keep_their_names(benchmarks: Files) -> None:
    frame = read_benchmarks(benchmarks)
    assert set(zip(frame["stage"], frame["job"], strict=True)) == {
        ("score", "merge/r2m"),
        ("score", "base/base"),
        ("base", ""),
        ("source", "orl"),
    }


def test_without_benchmarks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtimes(benchmarks={"base": {"": tmp_path / "nowhere"}}, out=tmp_path / "runtimes.csv")
    assert (tmp_path / "runtimes.csv").read_text() == "stage,jobs,cpu_seconds,wall_seconds,peak_mib\n"
    assert "no benchmark files" in caplog.text
    assert runtime_table(read_benchmarks({})).empty


@pytest.mark.parametrize("content", ["", "a\tb\n1\t2\n", HEADER + "1\tx\ty\t1\t1\t1\t0\t0\t50\tz\n"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.tsv").write_text(content)
    with pytest.raises(R2MError, match=r"bad\.tsv: not a benchmark file"):
        read_benchmarks({"base": {"": tmp_path / "bad.tsv"}})
