import subprocess
import sys

from r2m.seeding import derive, rng


def test_streams_are_named():
    assert derive(0, "a") == derive(0, "a")
    assert len({derive(0, "a"), derive(1, "a"), derive(0, "b"), derive(0, "a", "b"), derive(0, "ab")}) == 5
    assert 0 <= derive(3, "x") < 2**63
    assert rng(0, "a").random() == rng(0, "a").random()
    assert rng(0, "a").random() != rng(0, "b").random()


def test_seeds_do_not_depend_on_the_process():
    code = "from r2m.seeding import derive; print(derive(7, 'swap', '3'))"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()}
    assert runs == {str(derive(7, "swap", "3"))} == {"9204738898778295782"}
