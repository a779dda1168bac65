"""Processes are measured from start to exit, their peak memory included."""

import pytest
from label2label.errors import UserError


@pytest.fixture
def common(load_benchmark):
    return load_benchmark("common")


def test_a_process_has_its_own_peak_memory(common, tmp_path):
    (tmp_path / "helper.py").write_text("size = 100_000_000")
    program = tmp_path / "program.py"
    program.write_text("import sys, helper; data = b'x' * (helper.size * int(sys.argv[1]))")
    small, large = (common.run_python([program, times])["peak_bytes"] for times in (0, 1))
    assert large - small == pytest.approx(100_000_000, rel=0.1)
    done = common.run_python(["-m", "label2label", "--version"])
    assert 0 < done["seconds"] < 60


def test_a_process_that_fails_is_one_line(common, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit('some error')")
    with pytest.raises(UserError, match="ended with exit code 1: some error"):
        common.run_python([program])
    program.write_text("import os; os.abort()")
    with pytest.raises(UserError, match="exit code -6"):
        common.run_python([program])


def test_percentiles_interpolate(common):
    assert common.percentiles([*range(101)]) == {"p50": 50, "p95": 95}
