"""The benchmark of a GPU's first hour, run on a CPU: all parts, which cases are skipped, which errors are detected."""

import itertools
import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from checkout import BENCHMARKS
from fake_cuda import fake_cuda
from gpu_parts import bench as bench_parts
from gpu_parts import sound


@pytest.fixture(scope="module")
def gpu():
    """The script, as a module."""
    import gpu

    return gpu


@pytest.fixture
def bench(gpu, tmp_path, monkeypatch):
    """A bench on the CPU whose rows are written to a temporary folder."""
    monkeypatch.setattr(bench_parts.results, "FOLDER", tmp_path)
    return bench_parts.Bench(torch.device("cpu"), small=True, part="speed")


@pytest.mark.system
def test_all_parts_run_small_on_a_cpu(gpu, tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--small", "--device", "cpu", "--results", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows if row["verdict"] not in ("fine", "measured")] == []
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(gpu.PARTS)
    assert all({"case", "processor", "commit", "torch", "took"} <= row.keys() for row in rows)
    by_part = {part: [row for row in rows if row["part"] == part] for part in gpu.PARTS}
    for row in by_part["kernels"]:
        assert row["output"] == row["gradient"] == 0 or row["precision"] == "bfloat16" or row["layout"] == "ctc_loss"
    assert {row["layout"] for row in by_part["kernels"]} >= {"Plain", "PerSample", "Dense", "ctc_loss"}
    assert all(row["float32_most"] == 0 < row["bfloat16_most"] for row in by_part["losses"])
    assert by_part["recompiles"][0]["graphs"] == 1 and by_part["recompiles"][0]["breaks"] == 0
    timed = [row for row in by_part["speed"] if "tokens_per_second" in row]
    assert all(  # on a CPU without bfloat16 its product, with which steps are compared, is slow
        row["share_of_product"] > 0 and 0 <= row["waited"] < 1 and row["peak_memory_bytes"] > 2**27 for row in timed
    )
    counted = {row["case"]: row["share"] for row in by_part["speed"] if "share" in row}
    assert len(counted) == len(bench_parts.SHAPES) and counted["GPT-2 124M, 12 x 1,024, operations"] == pytest.approx(
        1, rel=1e-3
    )
    assert all(row["tokens_per_second"] > 0 for row in by_part["generation"])
    assert all(row["case"].partition(",")[0][:20] in process.stdout for row in rows)


def test_measured_cases_are_skipped_and_failed_cases_are_repeated(gpu, bench):
    calls = []

    def measured():
        calls.append(1)
        return {"figure": len(calls), "verdict": "fine"}

    bench.measure("one", lambda: 1 / 0)
    assert "failed: ZeroDivisionError: division by zero" in bench.rows()[0]["verdict"]
    bench.measure("one", measured)
    bench.measure("one", measured)
    bench_parts.Bench(bench.device, small=False, part="speed").measure("one", measured)
    assert [row["figure"] for row in bench.rows()] == [1] and len(calls) == 2
    bench_parts.Bench(bench.device, small=True, again=True, part="speed").measure("one", measured)
    assert [row["figure"] for row in bench.rows()] == [3]
    bench_parts.environment.cache_clear()
    bench.measure("two", measured)
    assert {row["case"] for row in bench.rows()} == {"one", "two"}


def test_each_part_runs_in_a_separate_process(gpu, bench, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command))
    monkeypatch.setattr(bench_parts.Bench, "rows", lambda self: [])
    gpu.run(["kernels", "speed"], bench_parts.Bench(bench.device, again=True))
    assert [command[command.index("--parts") + 1] for command in commands] == ["kernels", "speed"]
    assert all("--again" in command and str(bench_parts.results.FOLDER) in command for command in commands)


def test_a_wrong_mask_is_detected(gpu):
    """A mask that is wrong only in the backward pass is detected too."""
    import gpu_kernels

    way = gpu_kernels.WAYS["causal"]
    other = way._replace(options={"attention": "same_sample"})
    expected, _ = gpu_kernels.read(way, 12, torch.device("cpu"), "float32")
    row = gpu_kernels.difference(gpu_kernels.read(other, 12, torch.device("cpu"), "float32")[0], expected)
    assert "output" in gpu_kernels.verdict(row, {"output": 1e-4, "gradient": 1e-3})
    row = gpu_kernels.difference(expected | {"x": expected["x"] * 1.1}, expected)
    assert gpu_kernels.verdict(row, {"output": 1e-4, "gradient": 1e-3}) == "gradient 0.1 is above 0.001"
    row = gpu_kernels.difference(expected | {"output": expected["output"] * float("nan")}, expected)
    assert gpu_kernels.verdict(row, {"output": 1e-4}) == "output nan is above 0.0001"


@pytest.mark.system
def test_on_a_gpu_the_cases_use_every_layout(gpu):
    """They are planned for a fake CUDA device, in both types."""
    import gpu_kernels

    names = set()
    for way, kind in itertools.product(gpu_kernels.WAYS.values(), (torch.float32, torch.bfloat16)):
        with fake_cuda():
            core, rows = gpu_kernels.core_of(way).to("cuda"), gpu_kernels.rows_of(way.rows, 24)
            layouts = core.plan(rows, None, kind, "cuda")
            if way.source:
                layouts += (core.plan_cross(rows, gpu_kernels.rows_of(way.source, 24), kind, "cuda"),)
        names |= {type(layout).__name__ for layout in layouts}
    assert names == {"Plain", "VariableLength", "Flex", "Dense"}


def test_synchronizing_operations_are_reported_with_their_line(gpu):
    with sound.synchronisations(torch.device("cpu")) as counts:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    ((place, count),) = counts.items()
    assert place.startswith("tests/benchmarks/test_gpu_benchmark.py:") and count == 2


def test_reasons_for_recompilation_are_reported(gpu):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
    with sound.recompilations() as reasons:
        for size in range(2, 14):
            compiled(torch.ones(size))
    assert "size mismatch" in reasons[0] and any("recompile_limit" in reason for reason in reasons)
    torch._dynamo.reset()


def test_an_unknown_part_is_refused(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--parts", "kernel"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no part kernel; possible: kernels, losses" in capsys.readouterr().err
