"""Every architecture with every pruner, and every head that transformers has for it."""

import pytest
import torch

from thresher import PrunedModel, prune
from thresher.families import family_of
from thresher.heads import head_of
from thresher.pruners import PRUNERS

from .cases import LENGTHS, THRESHOLDS, clear_case, config, drops, maps_of, rows, soften
from .reference import masked_reference
from .tiny import ARCHITECTURES, heads_of, random_inputs

CASES = [(name, head) for name in ARCHITECTURES for head in heads_of(name)]
every_head = pytest.mark.parametrize(("name", "head"), CASES)
IN_FLOAT32 = ("modernbert", "eurobert", "gemma3", "t5", "mt5", "umt5")
LABELS = {
    "sequence": {"labels": torch.tensor([0, 2, 1, 0, 1, 2])},
    "tokens": {"labels": torch.arange(6 * 29).view(6, 29) % 3},
    "spans": {
        "start_positions": torch.tensor([3, 0, 2, 19, 1, 40]),  # the last lies outside and does not count
        "end_positions": torch.tensor([9, 0, 8, 19, 1, 40]),
    },
    "choice": {"labels": torch.tensor([1, 0])},
    "generation": {"labels": torch.arange(6 * 5).view(6, 5).masked_fill(torch.eye(6, 5) == 1, -100)},
}


def exactly(name: str) -> dict[str, float]:
    """The tolerance of float64, or of architectures that compute some part in float32 whatever they get."""
    return {"atol": 1e-6 if name.startswith(IN_FLOAT32) else 1e-9, "rtol": 0}


def made(name: str, head: str, pruner: str = "threshold", dropped: str = "translate", **options):
    """A pruned model, with drawn translators where they are asked for and the head reads dropped tokens."""
    reads = head_of(family_of(model := ARCHITECTURES[name](head=head, **options))).reads
    pruned = prune(model, config(pruner, dropped=dropped if reads == "all" else None))
    if pruned.translator is not None:
        draw = torch.Generator().manual_seed(0)
        for parameter in pruned.translator.parameters():
            parameter.data.normal_(std=0.1, generator=draw)
    if pruned.pruner.ladder:
        pruned.pruner.thresholds.copy_(torch.tensor(THRESHOLDS))
    return pruned


def given(pruned: PrunedModel, head: str, **padding) -> dict[str, torch.Tensor]:
    inputs = random_inputs(pruned.model, LENGTHS, **padding)
    return {key: x.view(2, 3, -1) for key, x in inputs.items()} if head == "choice" else inputs


def answers(output, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """What a model answers, at real tokens alone where it answers to each."""
    found = {key: x for key, x in output.items() if key != "loss" and torch.is_tensor(x)}
    if found.pop("encoder_last_hidden_state", None) is not None or mask is None:
        return found
    real = {key for key, x in found.items() if key != "logits" or x.dim() == 3}
    real -= {"pooler_output"}
    return {key: x[mask.bool()] if key in real else x for key, x in found.items()}


@every_head
@pytest.mark.usefixtures("no_grad")
def test_nothing_dropped_is_the_transformers_model(name, head):
    pruned = prune(ARCHITECTURES[name](head=head))
    inputs = given(pruned, head, extra_padding=3)
    mask = inputs["attention_mask"]
    ours, theirs = pruned(**inputs), pruned.model(**inputs)
    assert list(ours.keys()) == [key for key in theirs if key not in ("cache", "past_key_values")]
    for key, expected in answers(theirs, mask).items():
        torch.testing.assert_close(answers(ours, mask)[key], expected, **exactly(name))
    assert torch.equal(ours.trace.flops, ours.trace.dense_flops)
    by_tuple = pruned(**inputs, return_dict=False)
    assert all(torch.equal(a, b) for a, b in zip(by_tuple, ours.values(), strict=True))


@pytest.mark.parametrize(("name", "head"), [case for case in CASES if case[1] in LABELS])
@pytest.mark.usefixtures("no_grad")
def test_loss_is_that_of_transformers(name, head):
    """Of texts as long as each other, or with padding that is not to be learned."""
    pruned = prune(ARCHITECTURES[name](head=head))
    inputs, labels = given(pruned, head, extra_padding=3), LABELS[head]
    if head == "tokens":
        labels = {"labels": labels["labels"].masked_fill(inputs["attention_mask"] == 0, -100)}
    if head == "spans":  # where transformers counts padding among the places that an answer may have
        inputs = {key: x[3:4, :20] for key, x in inputs.items()}
        labels = {key: x[3:4] for key, x in labels.items()}
    ours, theirs = pruned(**inputs, **labels), pruned.model(**inputs, **labels)
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-5, rtol=0, check_dtype=False)


@pytest.mark.parametrize(("name", "head"), [case for case in CASES if case[1] != "choice"])
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.usefixtures("no_grad")
def test_dropping_equals_the_masked_reference(name, head, pruner):
    pruned = made(name, head, pruner, "carry" if pruner == "topk" else "translate")
    inputs, reference, _ = clear_case(
        pruned, name, pruner, suffix=pruned.pruning.suffix or 0, extra_padding=2, padding_side="left"
    )
    output, mask = pruned(**inputs), inputs["attention_mask"]
    for key, found in answers(output, mask).items():
        if key == "pooler_output":
            continue  # of a column of padding, in transformers
        torch.testing.assert_close(found, answers(reference.output, mask)[key], **exactly(name))
    assert torch.equal(output.trace.kept, reference.kept)
    torch.testing.assert_close(output.trace.flops, reference.flops.double(), atol=0, rtol=1e-12)
    assert torch.equal(output.trace.dense_flops, reference.dense_flops.double())
    assert (reference.kept[-1].sum() < 0.8 * sum(LENGTHS)) == drops(pruner)


@pytest.mark.parametrize("name", [name for name, head in CASES if head == "embedding"])
@pytest.mark.usefixtures("no_grad")
def test_the_mean_of_the_survivors_may_stand_for_dropped_tokens(name):
    pruned = made(name, "embedding", dropped="mean")
    inputs, reference, _ = clear_case(pruned, name, "threshold", dropped="mean")
    output, mask = pruned(**inputs), inputs["attention_mask"]
    found, wanted = output.last_hidden_state, reference.output.last_hidden_state
    torch.testing.assert_close(found[mask.bool()], wanted[mask.bool()], **exactly(name))
    if pruned.family.norm(found) is found:
        row = output.trace.positions(0)[-1]
        mean = found[0, : LENGTHS[0]].mean(0)
        torch.testing.assert_close(found[0, row].mean(0), mean, **exactly(name))


@every_head
@pytest.mark.usefixtures("no_grad")
def test_a_row_does_not_depend_on_its_batch(name, head):
    pruned = made(name, head)
    inputs = given(pruned, head)
    whole, mask = pruned(**inputs), inputs["attention_mask"]
    for row in range(len(mask)):
        text = {key: x[row : row + 1] for key, x in inputs.items()}
        if head != "choice":
            (text,) = rows(text)
        alone = answers(pruned(**text))
        for key, values in answers(whole).items():
            expected = values[row, : alone[key].shape[1]] if values.dim() > 1 else values[row]
            torch.testing.assert_close(alone[key][0], expected, **exactly(name))


@pytest.mark.parametrize(("name", "head"), [case for case in CASES if case[1] != "choice"])
def test_the_soft_stage_equals_the_masked_reference(name, head):
    """Gates, with what is carried; and every token's answer teaches every gate before."""
    pruned = made(name, head)
    suffix = pruned.pruning.suffix or 0
    inputs = random_inputs(pruned.model, LENGTHS, seed=3)
    mask = inputs["attention_mask"]

    def gates(layer, importance, alive):  # 1 / (1 + threshold / score), at temperature 0.5
        return 1 / (1 + THRESHOLDS[layer] / importance.clamp(min=1e-6))

    reference = masked_reference(pruned.model, inputs, gate_rule=gates, suffix=suffix, maps=maps_of(pruned))
    output = soften(pruned, 0.5)(**inputs)
    for key, found in answers(output, mask).items():
        torch.testing.assert_close(found, answers(reference.output, mask)[key], **exactly(name))
    sum(x.float().square().sum() for x in answers(output, mask).values()).backward()
    last = 3 if pruned.head.reads in ("prefix", "suffix") else 4  # which need no other token
    assert (pruned.pruner.table.grad[0, :last] != 0).all()


@every_head
@pytest.mark.usefixtures("no_grad")
def test_saved_and_loaded_bit_for_bit(name, head, tmp_path):
    pruned = made(name, head, dtype=torch.float32)
    pruned.save_pretrained(tmp_path)
    again = PrunedModel.from_pretrained(tmp_path)
    assert type(again.model) is type(pruned.model)
    inputs = given(pruned, head)
    for key, found in answers(again(**inputs)).items():
        assert torch.equal(found, answers(pruned(**inputs))[key])
