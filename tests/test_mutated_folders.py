"""Folders that somebody careless or hostile changed: refused in words, or loaded and right; nothing else."""

from __future__ import annotations

import builtins
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from thresher import PrunedModel, UserError
from thresher.inference.stream import predict_file
from thresher.training.base import load_base

from .mutations import KINDS, Mutation, both, code, edit, mutations, save_folder
from .pickles import BIN, pickles
from .reference import masked_reference

COUNT, BATCHES = 750, 20
SECONDS, PATIENCE = 10, 60  # of the processor; of the clock, which runs on while others have the machine
GROWTH = 2**20  # kB that the peak of memory may rise in a batch
TEXTS = [
    "the film was good",
    "a very dull scene and the music is bad bad bad of the plot",
    "quite",
    "bright actor",
]
PLACES = (sys.prefix, sys.base_prefix, transformers.__path__[0], Path(__file__).parents[1])
ALLOWED = (
    *(str(Path(place).resolve()) for place in PLACES),
    *("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/", "/lib", "/etc/ld.so.cache", "/etc/localtime"),
)


class Watch:
    """What this process opens and runs, as Python's audit tells it. A hook cannot be taken off again, so that
    there is one, which is told when to look."""

    def __init__(self) -> None:
        self.inside: tuple[Path, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self)

    @contextmanager
    def over(self, *places: Path) -> Iterator[None]:
        """Look while the block runs; what lies in `places` may be opened."""
        self.seen, self.inside = [], places
        try:
            yield
        finally:
            self.inside = ()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.inside:
            return
        if event in ("os.system", "subprocess.Popen", "os.exec", "socket.connect", "builtins.input"):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            name = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
            path = Path(name).resolve()
            mine = any(path.is_relative_to(place) for place in self.inside)
            if not mine and not str(path).startswith(ALLOWED):
                self.seen.append(f"open {path}")


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """The folder as it should be, the same in shards, another model, and texts."""
    root = tmp_path_factory.mktemp("world")
    for kind in KINDS:
        save_folder(root / kind, kind)
    save_folder(root / "shards", sharded=True)
    save_folder(root / "outside", seed=1)
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for name in ("work", "before"):
        (root / name).mkdir()
    assert answers(root / "bert", root) != answers(root / "outside", root)
    return root


@pytest.fixture(scope="module")
def expected(world) -> dict[str, list[dict[str, Any]]]:
    """The answers of each kind, as it should be."""
    found = {kind: answers(world / kind, world) for kind in KINDS}
    assert all(near(found[kind], meant(world / kind)) for kind in KINDS)
    return found


def answers(folder: Path, world: Path) -> list[dict[str, Any]]:
    """What the command predict writes."""
    with tempfile.TemporaryDirectory(dir=world / "work") as place:
        output = Path(place) / "out.jsonl"
        predict_file(str(folder), world / "texts.jsonl", output, [])
        found = [json.loads(line) for line in output.read_text().splitlines()]
    return [{key: row[key] for key in ("prediction", "score")} for row in found]


def meant(folder: Path) -> list[dict[str, Any]]:
    """What the settings of a folder say, by stock transformers and by masks in float64."""
    block = json.loads((folder / "config.json").read_text())["token_pruning"]
    options, metadata = block.get("options", {}), block.get("metadata") or {}
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False).eval()
    words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    thresholds = load_file(folder / "token_pruning.safetensors")["table"][0].double()

    def keep(layer, importance, alive, lengths):
        if options.get("normalization") == "paper":
            importance = importance * 128 / alive.sum(1, keepdim=True)
        return importance >= thresholds[layer]

    found = []
    for text in TEXTS:
        inputs = words(
            text, truncation=True, max_length=metadata.get("max_length") or 32, return_tensors="pt"
        )
        ends = {"prefix": block.get("prefix", 1), "suffix": block.get("suffix") or 0}
        with torch.no_grad():
            logits = masked_reference(model, dict(inputs), keep, **ends).logits[0]
        logits = logits + torch.tensor(block.get("offset") or [0.0], dtype=torch.float64)
        score, best = logits.softmax(0).max(0)
        found.append({"prediction": str(model.config.id2label[int(best)]), "score": float(score)})
    return found


def near(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return [row["prediction"] for row in one] == [row["prediction"] for row in other] and all(
        abs(a["score"] - b["score"]) < 1e-4 for a, b in zip(one, other, strict=True)
    )


def verdict(mutation: Mutation, world: Path, expected: dict[str, Any], watch: Watch) -> str | None:
    """What is wrong with what came of a mutation, or None."""
    folder = world / "folder-of-theirs"
    shutil.copytree(world / mutation.kind, folder)
    try:
        mutation.change(folder)
        try:
            with watch.over(folder, world / "work", world / "texts.jsonl"):
                found = answers(folder, world)
        except UserError as error:
            if mutation.outcome == "same":
                return f"refused: {error}"
            asked = "`text`" in str(error) or "texts.jsonl:1: no column" in str(error)  # as its settings say
            named = str(folder) in str(error) or asked
            return None if named else f"the folder is not named: {error}"
        if mutation.outcome == "refused":
            return f"loaded: {found}"
        if near(found, expected[mutation.kind]):
            return None
        return None if mutation.outcome == "any" and near(found, meant(folder)) else f"wrong: {found}"
    finally:
        shutil.rmtree(folder)


def refuse_to_wait(*_: object) -> None:
    raise TimeoutError("it hangs")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutated_folders_are_refused_in_words_or_right(batch, world, expected, watch, monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda *_: "yes")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = []
    for given in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(given, refuse_to_wait)
    for mutation in mutations(COUNT)[batch::BATCHES]:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(PATIENCE)
        start = time.process_time()
        try:
            fault = verdict(mutation, world, expected, watch)
        except BaseException as error:
            fault = f"{type(error).__name__}: {error!s:.300}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        if fault is None and (watch.seen or (world / "ran").exists()):
            fault = f"it opened or ran {watch.seen}"
        (world / "ran").unlink(missing_ok=True)
        if fault is not None:
            faults.append(f"{mutation.name:.100} ({time.process_time() - start:.1f} s): {fault:.400}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.mark.parametrize("given", [mutations(COUNT)[::6], pickles()], ids=["safetensors", "pickles"])
def test_folders_to_start_from_get_the_same_care(given, world, watch):
    """A pruned folder is a base model, too."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = [
        f"{mutation.name:.100}: {fault:.300}"
        for mutation in given
        if (fault := verdict_on_base(mutation, world, watch)) is not None
    ]
    assert not faults, "\n".join(faults)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


def verdict_on_base(mutation: Mutation, world: Path, watch: Watch) -> str | None:
    """What is wrong with the base model that a mutation gives, or None."""
    shutil.copytree(world / mutation.kind, folder := world / "folder-of-theirs")
    try:
        mutation.change(folder)
        with watch.over(folder):
            model, _ = load_base(str(folder))
        if watch.seen or (world / "ran").exists():
            return f"it opened or ran {watch.seen}"
        if (pickled := (folder / BIN).exists()) and mutation.outcome == "refused":
            return "loaded"
        if pickled and mutation.outcome == "same":
            honest = load_file(world / mutation.kind / "model.safetensors")
            assert all(torch.equal(weight, honest[name]) for name, weight in model.named_parameters())
        assert all(weight.isfinite().all() for weight in model.parameters())
        taken = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        assert taken < 4 * sum(file.stat().st_size for file in folder.glob("*"))
    except UserError as error:
        if mutation.outcome == "same":
            return f"refused: {error}"
        if "weights_only" in str(error):
            return f"it advises to let the file run what it likes: {error}"
        return None if str(folder) in str(error) else f"the folder is not named: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
    return None


@pytest.mark.parametrize(
    "pickle", [b"cos\nsystem\n(Vtouch RAN\ntR.", b"cbuiltins\nexec\n(Vopen('RAN', 'w')\ntR."]
)
def test_weights_of_the_older_format_run_nothing(pickle, world, tmp_path):
    shutil.copytree(world / "bert", folder := tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.replace(b"RAN", str(tmp_path / "ran").encode()))
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged"):
        load_base(str(folder))
    assert not (tmp_path / "ran").exists()


def test_nobody_is_asked_whether_code_may_run(world, tmp_path):
    """With a standard input that says yes to all."""
    auto = {"AutoConfig": "mine.Mine", "AutoTokenizer": ["mine.Mine", "mine.Mine"]}
    for file, key in (("config.json", "model_type"), ("tokenizer_config.json", "tokenizer_class")):
        shutil.copytree(world / "bert", tmp_path / file)
        both(code, edit(file, "auto_map", value=auto), edit(file, key, value="mine"))(tmp_path / file)
    program = (
        "import sys; from thresher.cli import app; _, texts, output, *folders = sys.argv; "
        "print([app(['predict', folder, '--input', texts, '--output', output], standalone_mode=False)"
        " for folder in folders])"
    )
    given = [
        world / "texts.jsonl",
        tmp_path / "out.jsonl",
        *(tmp_path / f"{n}config.json" for n in ("", "tokenizer_")),
    ]
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    command = [sys.executable, "-c", program, *given]
    ran = subprocess.run(command, stdin=yes.stdout, capture_output=True, text=True, timeout=500)
    yes.kill()
    yes.wait()
    said = " ".join(ran.stderr.split())
    assert (ran.stdout.strip(), said.count("own code"), "Traceback" in said) == ("[2, 2]", 2, False), (
        ran.stderr
    )
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.jsonl").exists()


def test_links_of_the_hubs_cache_are_followed(world, tmp_path):
    """It keeps files as blobs, and links them into each revision."""
    cache = tmp_path / "models--somebody--pruned"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    shutil.copytree(world / "bert", cache / "blobs")
    for file in (cache / "blobs").iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert answers(snapshot, world) == answers(world / "bert", world)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(world / "outside" / "config.json")
    with pytest.raises(UserError, match="a link that leads out of its folder"):
        PrunedModel.from_pretrained(snapshot)


def test_what_a_folder_cannot_decide_is_not_kept(world, tmp_path):
    """Nor does it go on into the folder that is written next."""
    shutil.copytree(world / "bert", folder := tmp_path / "folder")
    for key in ("auto_map", "attn_implementation", "_attn_implementation"):
        edit("config.json", key, value={"AutoConfig": "a.b"} if key == "auto_map" else "somebody/kernel")(
            folder
        )
    model = PrunedModel.from_pretrained(folder)
    assert model.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert not [key for key in written if "attn" in key]
    assert written["auto_map"] == {"AutoModelForSequenceClassification": "modeling_thresher.PrunedModel"}
