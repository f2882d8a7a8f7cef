"""The scripts of experiments/ from data to tables, on a toy encoder and a toy language."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests import toy
from tests.test_tables import training

SCRIPTS = Path(__file__).parent.parent / "experiments"
TASK = "ag_news"  # of single texts, with columns text and label
_spec = spec_from_file_location("results", SCRIPTS / "results.py")
results = module_from_spec(_spec)
_spec.loader.exec_module(results)


@pytest.fixture(scope="module")
def scripts():
    """The modules, which find each other as they do when they are run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import calibration
        import length_shift
        import operations
        import quality_at_budget
        import samples
        import search
        import second_file
        import tables
        import tasks
        import what_is_pruned

        yield {
            module.__name__: module
            for module in (
                calibration,
                length_shift,
                operations,
                quality_at_budget,
                samples,
                search,
                second_file,
                tables,
                tasks,
                what_is_pruned,
            )
        }
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "data" / "ag_news_10k").mkdir(parents=True)
    toy.write_tsv(folder / "data" / "ag_news_10k" / "train.tsv", 400)
    toy.write_tsv(folder / "data" / "ag_news_10k" / "test.tsv", 100, seed=1)
    toy.save_model(folder / "encoder", max_position_embeddings=128)
    return folder


@pytest.fixture(scope="module")
def run(scripts, world):
    """Run a script's main; gives what it printed."""

    def run(name: str, *argv: str, capsys) -> str:
        places = ["--results", str(world / "results")]
        if name != "tables":
            places += ["--work", str(world / "work"), "--encoder", str(world / "encoder")]
        scripts[name].main([*([] if name == "tables" else [TASK]), *argv, *places])
        return capsys.readouterr().out

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRESHER_DATA", str(world / "data"))
        yield run


def test_methods_run_once_and_stand_in_the_tables(run, scripts, world, capsys):
    methods = ("ours", "topk", "last-layer", "shallow", "none")
    asked = ("quality_at_budget", "--methods", *methods, "--seeds", "0", "--budget", "0.5")
    printed = run(*asked, capsys=capsys)
    assert printed.count("\n") >= len(methods)
    files = results.load(world / "results")
    assert sorted(files) == sorted(f"{TASK}-{method}-0.5-seed0" for method in methods)
    assert all(report["data"]["train"] == "train.tsv" for report in files.values())  # and no path
    ratios = {
        name.removeprefix(f"{TASK}-").removesuffix("-0.5-seed0"): r["flops_ratio"]
        for name, r in files.items()
    }
    assert ratios["none"] == 1.0
    assert 0.75 < ratios["last-layer"] < 0.9
    assert 0.25 < ratios["shallow"] <= 0.5  # two layers of four, and the last one is cheap
    assert ratios["ours"] == pytest.approx(0.5, abs=0.05)
    assert run(*asked, capsys=capsys) == ""  # nothing is run again
    begin, end = scripts["tables"].MARKS
    marked = f"Before\n{begin}old\n{end}\nafter"
    for broken in ("no marks", marked.replace("until", "til")):
        (world / "README.md").write_text(broken)
        run("tables", capsys=capsys)
        assert (world / "README.md").read_text() == broken
    (world / "README.md").write_text(marked)
    table = run("tables", capsys=capsys)
    for _ in range(2):
        readme = (world / "README.md").read_text()
        assert readme.startswith("Before\n")
        assert readme.endswith("\nafter")
        assert "old" not in readme
        assert readme.count(table.partition("Figure:")[0].strip()) == 1
        run("tables", capsys=capsys)
    for method in methods:
        assert f"| {method} | 0.5 | {ratios[method]:.3f} |" in table
    assert (world / "quality_at_budget.png").exists()
    file = world / "results" / "quality_at_budget.jsonl"
    before = file.read_text()
    file.write_text(before.replace('"distill": 0.9', '"distill": 0.5'))
    with pytest.raises(SystemExit, match="another distill"):
        run(*asked, capsys=capsys)
    file.write_text(before)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "distill"], "is no JSON"),
        (["--set", "distill=a"], "'a' of distill is no JSON"),
        (["--set", "budget=0.3"], "'budget' is none of "),
        (["--max-drop", "1", "--methods", "ours", "topk"], "topk has none of"),
    ],
)
def test_bad_arguments(run, capsys, argv, message):
    with pytest.raises(SystemExit) as stopped:
        run("quality_at_budget", *argv, capsys=capsys)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_data_is_no_traceback(run, scripts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THRESHER_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        scripts["tasks"].script(lambda: run("quality_at_budget", "--seeds", "0", capsys=capsys))
    assert stopped.value.code == 2
    assert "train.tsv" in capsys.readouterr().err


def test_phrases_are_kept_apart_with_their_sentences(scripts, tmp_path, monkeypatch):
    samples = scripts["samples"]
    texts = ["a film", "a film of wit", "wit", "of", "no wit at all , of course", "at all", "film wit", "wit"]
    assert samples.sentences(texts).tolist() == [1, 1, 4, 4, 4, 4, 6, 4]
    (tmp_path / "sst2").mkdir()
    monkeypatch.setenv("THRESHER_DATA", str(tmp_path))
    words = [[f"w{sentence}x{word}" for word in range(6)] for sentence in range(50)]
    rows = [" ".join(some[:end]) for some in words for end in (6, 4, 2)]
    (tmp_path / "sst2" / "train.tsv").write_text(
        "sentence\tlabel\n" + "".join(f"{row}\tyes\n" for row in rows)
    )
    files = samples.parts("sst2", tmp_path)
    seen, unseen = (
        [json.loads(line)["sentence"] for line in Path(file).read_text().splitlines()] for file in files
    )
    assert sorted(seen + unseen) == sorted(rows)
    assert len(seen) == 120
    assert not {row.split("x")[0] for row in seen} & {row.split("x")[0] for row in unseen}


def made_up(task, method, ratio, lost, seed=0, budget=0.5, **more):
    """A report as quality_at_budget.py writes it."""
    quality = {"base": {"accuracy": 90.0}, "pruned": {"accuracy": 90.0 - lost}}
    what = {"task": task, "method": method, "seed": seed, "budget": budget, "max_drop": None, "changed": {}}
    found = training(quality=quality, drop=lost).to_json() | {"flops_ratio": ratio, "seconds": 60}
    return found | {"experiment": what} | more


def test_the_headline_counts_what_fails_and_caps_what_shines(scripts):
    tables = scripts["tables"]

    def timed(quality, flops_ratio, speed):
        row = {"quality": {"accuracy": quality}, "flops_ratio": flops_ratio, "speed": {"ratio": speed}}
        return {"fp32": row}

    reports = {
        "sst2-ours-0.5-seed0": made_up("sst2", "ours", 0.5, 0.4),
        "sst2-ours-0.5-seed1": made_up("sst2", "ours", 0.5, 1.5, seed=1),
        "sst2-ours-0.5-seed2": made_up("sst2", "ours", 0.5, 0.35, seed=2),  # 0.75 on average
        "sst2-ours-0.4-seed0": made_up("sst2", "ours", 0.4, 1.1, budget=0.4),
        "sst2-topk-0.3-seed0": made_up("sst2", "topk", 0.3, 0.0, budget=0.3),
        "mrpc-ours-0.5-seed0": made_up("mrpc", "ours", 0.5, 1.2),
        "imdb-ours-0.1-seed0": made_up("imdb", "ours", 0.1, 0.0, budget=0.1),
        "rte-ours-0.4-seed0": made_up("rte", "ours", 0.4, 0.0, budget=0.4),  # not of those that are averaged
        "operations-sst2": {
            "models": {
                # Another model of that name, and one that only differs in what it keeps.
                "sst2-ours-0.5-seed0": timed(87.0, 0.5, 9.9),
                "sst2-ours-0.5-seed2": timed(89.65, 0.4, 9.9),
                "sst2-ours-0.5-seed1": timed(88.5, 0.5, 1.74),
            }
        },
    }
    table = tables.headline_table(tables.at_budgets(reports), reports)
    assert "| sst2 | accuracy | 90.00 (0.00) | 89.25 (0.65) | 3 | 0.5 | 2.0 x | 1.7 x |  |  |" in table
    assert "| mrpc | none tried loses as little |" in table
    assert f"| mean of these 3 |  |  |  |  |  | {3 / (0.5 + 0.88 + 0.2):.1f} x |" in table
    assert table.index("mean of") < table.index("| rte |")


def test_methods_are_compared_over_the_seeds_that_both_have(scripts):
    tables = scripts["tables"]
    point = {"seconds": 60, "points": {"0.5": {"lost": 0.25}}}
    reports = {
        "mrpc-ours-0.5-seed0": made_up("mrpc", "ours", 0.5, 0.4),
        "mrpc-ours-0.5-seed1": made_up("mrpc", "ours", 0.5, 1.5, seed=1),
        "mrpc-ours-0.5-seed2": made_up("mrpc", "ours", 0.5, 9.0, seed=2),
        "mrpc-topk-0.5-seed0": made_up("mrpc", "topk", 0.5, 1.4),
        "mrpc-topk-0.5-seed1": made_up("mrpc", "topk", 0.5, 4.5, seed=1),
        "mrpc-paper-0.5-seed3": made_up("mrpc", "paper", 0.5, 0.1, seed=3),
        "mrpc-paper-0.4-seed0": made_up("mrpc", "paper", 0.4, 0.1, budget=0.4),
        "sst2-ours-0.5-seed0": made_up("sst2", "ours", 0.5, 0.4),
        "sst2-none-0.5-seed0": made_up("sst2", "none", 1.0, 0.3),
        "second_file-mrpc": {
            "models": {
                "mrpc-ours-0.5-seed0": point,
                "mrpc-topk-0.5-seed0": point | {"points": {"None": {"lost": 1.0}}},
                "mrpc-topk-0.5-seed1": point,
            }
        },
    }
    table = tables.beside_table(tables.at_budgets(reports))
    assert table.splitlines()[2:] == [
        "| where | none | topk |",
        "|---|---|---|",
        "| sst2 at 0.5 | -0.10 |  |",
        "| mrpc at 0.5 |  | 2.00 (1.41) |",
        "| mrpc at 0.5, second file |  | 0.75 |",
    ]


@pytest.mark.parametrize(
    ("lost", "low", "kept", "clear", "verdict"),
    [
        (0.9, 0.2, True, True, "yes"),
        (1.2, 0.8, True, True, "within the error"),
        (1.9, 1.1, True, True, "no"),
        (0.5, 0.1, True, False, "yes; said not to be sure"),
        (0.5, 0.1, False, False, "yes; said that it cannot be"),
    ],
)
def test_whether_a_promise_was_kept(scripts, lost, low, kept, clear, verdict):
    choice = {
        "bound": 1.0,
        "drop": 0.7,
        "interval": (0.1, 1.3),
        "texts": 99,
        "kept": kept,
        "clear": clear,
        "flops_ratio": 0.4,
        "tried": [],
    }
    report = made_up("rte", "ours", 0.4, lost, budget=None, max_drop=choice, drop_interval=(low, 3.0))
    report["experiment"]["max_drop"] = 1.0
    table = scripts["tables"].drop_table({"rte-ours-drop1.0-seed0": report})
    assert f"| rte | ours | 1 | 0 | 0.70 (0.10 to 1.30) | 99 | 90.00 | {lost:.2f} " in table
    assert f"| {verdict} |" in table


@pytest.mark.parametrize(
    ("task", "metrics"), [("medquad", ["ndcg@10", "mrr@10"]), ("medquad_vectors", ["ndcg@10", "recall@100"])]
)
def test_test_queries_are_searched(task, metrics, scripts, world, monkeypatch, capsys):
    if not (world / "data" / "medquad").exists():
        toy.collection(world / "data" / "medquad")
        toy.save_encoder(world / "bare", layers=2)
    monkeypatch.setenv("THRESHER_DATA", str(world / "data"))
    counts = {"train": 20, "dev": 5, "test": 7}
    settings = {"queries": counts, "base_epochs": 0.5, "epochs": 0.2, "hard_epochs": 0.2, "max_length": 48}
    monkeypatch.setitem(scripts["tasks"].TASKS, task, replace(scripts["tasks"].TASKS[task], **settings))
    places = ["--results", str(world / "searched"), "--work", str(world / "work")]
    places += ["--encoder", str(world / "bare")]
    scripts["quality_at_budget"].main([task, "--budget", "0.7", "--seeds", "0", *places])
    run = f"{task}-ours-0.7-seed0"
    for _ in range(2):  # the second time nothing is run again
        scripts["search"].main([task, "--run", run, "--precision", "fp32", *places])
    assert capsys.readouterr().out.count(f"search-{run} ") == 1
    found = results.get(world / "searched", f"search-{run}")
    assert list(found["quality"]["pruned"]) == list(found["quality"]["base"]) == metrics
    assert found["lost"] == pytest.approx(
        found["quality"]["base"]["ndcg@10"] - found["quality"]["pruned"]["ndcg@10"]
    )
    assert found["interval"][0] <= found["lost"] <= found["interval"][1]
    assert 0.5 < found["flops_ratio"] < 0.85
    table = scripts["tables"].search_table({f"search-{run}": found})
    assert (
        f"| {run} | ndcg@10 | {found['flops_ratio']:.3f} | {found['quality']['base']['ndcg@10']:.2f} |"
        in table
    )
    assert scripts["tables"].at_budgets(results.load(world / "searched")) == {}


def test_what_is_pruned_is_surveyed(run, world, capsys):
    run("quality_at_budget", "--methods", "ours", "--seeds", "0", "--budget", "0.5", capsys=capsys)
    printed = run("what_is_pruned", "--seeds", "0", "--budget", "0.5", capsys=capsys)
    assert "[CLS]" in printed
    found = results.get(world / "results", f"what_is_pruned-{TASK}")
    alive = found["alive_by_kind"]
    assert alive["[CLS]"] == [1.0] * 4
    assert alive["[SEP]"] == [1.0, 1.0, 1.0, 0.0]
    share, layers = found["share_of_tokens"], range(4)
    total = [sum(share[name] * alive[name][layer] for name in alive) for layer in layers]
    assert total == pytest.approx(found["alive_by_model"][0])
    assert {"film", "good"} & {word for key in ("kept_longest", "dropped_first") for word, _ in found[key]}


def test_calibration_on_texts_that_base_has_not_seen(run, world, capsys):
    printed = run("calibration", "--max-change", "0.3", capsys=capsys)
    assert "of the test file, at" in printed
    seen, unseen = (
        (world / "work" / f"{TASK}-{part}.jsonl").read_text().splitlines() for part in ("seen", "unseen")
    )
    train = (world / "data" / "ag_news_10k" / "train.tsv").read_text().splitlines()[1:]
    assert (len(seen), len(unseen)) == (320, 80)
    assert sorted(json.loads(row)["text"] for row in seen + unseen) == sorted(r.split("\t")[0] for r in train)
    report = results.get(world / "results", f"calibration-{TASK}-0.3-seed0")
    assert (report["model"], report["data"]["texts"]) == (f"{TASK}-seen-base-0", f"{TASK}-unseen.jsonl")
    assert report["change"] <= 0.3
    test = report["test"]
    assert test["flops_ratio"] <= test["last_layer"] < 0.9
    moved = abs(test["quality"]["base"]["accuracy"] - test["quality"]["pruned"]["accuracy"]) / 100
    assert moved <= test["change"] + 1e-9
    assert run("calibration", "--max-change", "0.3", capsys=capsys) == ""  # nothing is run again
    assert f"| {test['flops_ratio']:.3f} |" in run("tables", capsys=capsys)


def test_lengths_shift(run, world, capsys):
    run("length_shift", "--methods", "ours", "--budget", "0.6", capsys=capsys)
    report = results.get(world / "results", f"length-shift-{TASK}-ours-0.6-seed0")
    groups = report["groups"]
    assert sum(group["texts"] for group in groups) == 100
    assert groups[0]["tokens"][1] == groups[1]["tokens"][0] < groups[2]["tokens"][1]
    longest = max(
        len(line.split()) for line in (world / "work" / f"{TASK}-short.jsonl").read_text().splitlines()
    )
    assert longest < 24
    assert "0.6 | 0 |" in run("tables", capsys=capsys)


def test_a_second_file_says_what_the_first_does_where_it_is_the_same(
    run, scripts, world, capsys, monkeypatch
):
    monkeypatch.setattr(scripts["tasks"].TASKS[TASK], "second", "ag_news_10k/test.tsv")
    run("quality_at_budget", "--methods", "ours", "--seeds", "0", "--budget", "0.7", "0.5", capsys=capsys)
    run("quality_at_budget", "--methods", "topk", "--seeds", "0", "--budget", "0.5", capsys=capsys)
    printed = run("second_file", capsys=capsys)
    assert f"{TASK}-ours-0.7-0.5-seed0 at 0.7" in printed
    assert run("second_file", capsys=capsys) == ""
    models = results.get(world / "results", f"second_file-{TASK}")["models"]
    for name, key in ((f"{TASK}-ours-0.7-0.5-seed0", "0.7"), (f"{TASK}-topk-0.5-seed0", "None")):
        report = results.get(world / "results", name)
        point = models[name]["points"][key]
        assert point["pruned"] == report["quality"]["pruned"]
        assert (point["lost"], point["interval"]) == (report["drop"], report["drop_interval"])
    table = run("tables", capsys=capsys)
    assert "| as base | lost, second file | seeds |" in table
    row = next(line for line in table.splitlines() if line.startswith("| topk | 0.5 |"))
    assert row.split(" | ")[7] == f"{point['lost']:.2f}"
    topk = f"{TASK}-topk-0.5-seed0"
    report = results.get(world / "results", topk)
    # Another run: what was measured is not its own.
    results.put(world / "results", topk, report | {"seconds": -1.0})
    row = next(
        line for line in run("tables", capsys=capsys).splitlines() if line.startswith("| topk | 0.5 |")
    )
    assert row.split(" | ")[7] == ""
    assert run("second_file", capsys=capsys) == ""
    results.put(world / "results", topk, report)


def test_runs_that_finish_together_lose_nothing(tmp_path):
    """And a line is replaced where its run is run again."""
    names = [f"sst2-ours-0.5-seed{seed}" for seed in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: results.put(tmp_path, name, {"name": name}), names))
    results.put(tmp_path, names[3], {"name": "again"})
    results.put(tmp_path, "operations-sst2", {"other": Path("a")})
    found = results.load(tmp_path)
    assert list(found) == sorted([*names, "operations-sst2"])
    assert found[names[3]] == {"name": "again"}
    assert found[names[4]] == {"name": names[4]}
    assert results.get(tmp_path, "operations-sst2") == {"other": "a"}
    assert results.get(tmp_path, "mrpc-ours-0.5-seed0") is None
    assert len((tmp_path / "quality_at_budget.jsonl").read_text().splitlines()) == 20


def test_operations_of_each_precision(run, world, capsys):
    run("quality_at_budget", "--methods", "ours", "--seeds", "0", "--budget", "0.7", "0.5", capsys=capsys)
    ladder = str(world / "work" / f"{TASK}-ours-0.7-0.5-seed0")
    run("operations", ladder, f"{ladder}@0.5", capsys=capsys)
    models = results.get(world / "results", f"operations-{TASK}")["models"]
    rows, cheaper = models[Path(ladder).name], models[f"{Path(ladder).name}@0.5"]
    for name, row in rows.items():
        assert cheaper[name]["flops"] / row["flops"] == pytest.approx(0.5 / 0.7, abs=0.1)
    assert list(rows) == ["fp32", "bf16", "int8"]
    bits = [rows[name]["bit_operations"] for name in rows]
    assert bits[0] == pytest.approx(4 * bits[1], rel=0.01)  # bfloat16 moves a token or two
    assert bits[1] > bits[2] > bits[1] / 4
    begin = f"| {Path(ladder).name} | int8 |"
    row = next(line for line in run("tables", capsys=capsys).splitlines() if line.startswith(begin))
    _, _, _, flops, operations, _ = row.strip("| ").split(" | ")
    assert float(flops.removesuffix(" x")) == pytest.approx(1 / 0.7, abs=0.15)
    dense = rows["int8"]["flops"] / rows["int8"]["flops_ratio"]
    assert operations == f"{1024 * dense / bits[2]:.0f} x"
