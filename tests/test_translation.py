"""Translated states of dropped tokens: against numpy's least squares, by gradients, saved, and in C++."""

import numpy as np
import pytest
import torch

from thresher import PrunedModel, PruningConfig, UserError, prune
from thresher.carried import Translator
from thresher.training.translation import RIDGE, fit_translator

from .cases import LENGTHS, THRESHOLDS, soften
from .tiny import ARCHITECTURES, random_inputs


def made(head="tokens", dtype=torch.float32, **settings):
    """A pruned model that drops in every layer, with drawn translators."""
    model = ARCHITECTURES["bert"](head=head, dtype=dtype)
    pruned = prune(model, PruningConfig(options={"score": "attention"}, dropped="translate", **settings))
    pruned.pruner.thresholds.copy_(torch.tensor(THRESHOLDS))
    for parameter in pruned.translator.parameters():
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return pruned


class Given:
    """Stands in for the encoder: batches as they are."""

    def __init__(self, batches):
        self.given = batches

    def batches(self, rows):
        return [([0, 1], batch) for batch in self.given]


def test_a_fit_is_numpys_least_squares():
    """On states of the plain transformers model, of real tokens alone."""
    pruned = made(dtype=torch.float64)
    batches = [random_inputs(pruned.model, LENGTHS, seed=seed) for seed in range(3)]
    told = []
    fit_translator(pruned, Given(batches), {}, advance=told.append)
    assert told == [2, 2, 2]
    states = []
    for batch in batches:
        with torch.no_grad():
            found = pruned.model(**batch, output_hidden_states=True).hidden_states
        states.append([x[batch["attention_mask"].bool()].numpy() for x in found])
    *entering, last = (np.concatenate(x) for x in zip(*states, strict=True))
    for layer, x in enumerate(entering):
        known = np.concatenate([x, np.ones((len(x), 1))], 1)
        ridge = RIDGE * np.square(x).sum(0).mean() * np.eye(known.shape[1])
        ridge[-1, -1] = 0
        wanted = np.linalg.solve(known.T @ known + ridge, known.T @ (last - x))
        assert np.abs(pruned.translator.weight[layer].detach().numpy() - wanted[:-1].T).max() < 1e-3
        translated = pruned.translator(layer, torch.from_numpy(x)).detach().numpy()
        assert np.square(translated - last).mean() < np.square(x - last).mean()


@pytest.mark.parametrize("soft", [False, True])
def test_every_matrix_learns_from_what_is_dropped(soft):
    pruned = made(dtype=torch.float64).train()
    inputs = random_inputs(pruned.model, LENGTHS)
    output = (soften(pruned, 0.5) if soft else pruned)(**inputs)
    output.logits[inputs["attention_mask"].bool()].square().sum().backward()
    assert (pruned.translator.weight.grad.abs().sum((1, 2)) > 0).all()
    assert (pruned.translator.bias.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.usefixtures("no_grad")
def test_engines_translate(precision, tmp_path):
    """What runs all layers in one call answers as layer by layer."""
    pruned = made()
    pruned.save_pretrained(tmp_path)
    inputs = random_inputs(pruned.model, LENGTHS)
    mask = inputs["attention_mask"].bool()
    wanted, dropped = pruned(**inputs), made(head="tokens")
    dropped.translator = None
    assert not torch.allclose(wanted.logits[mask], dropped(**inputs).logits[mask], atol=0.01)
    ready = PrunedModel.from_pretrained(tmp_path, precision=precision)
    found = ready(**inputs)
    if precision == "fp32":
        assert torch.equal(found.trace.kept, wanted.trace.kept)
        torch.testing.assert_close(found.logits[mask], wanted.logits[mask], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.trace.flops, wanted.trace.flops)
    else:
        same = torch.cat(found.trace.depths) == torch.cat(wanted.trace.depths)
        apart = (found.logits[mask].float() - wanted.logits[mask])[same].abs().mean()
        assert apart < 0.1 * wanted.logits[mask].std()


@pytest.mark.usefixtures("no_grad")
def test_what_is_learned_is_saved_and_taken(tmp_path):
    pruned, other = made(), made()
    for parameter in other.translator.parameters():
        parameter.data.zero_()
    other.load_learned(pruned.learned())
    inputs = random_inputs(pruned.model, LENGTHS)
    assert torch.equal(other(**inputs).logits, pruned(**inputs).logits)
    state = pruned.state_dict()
    again = made()
    again.load_state_dict(state)
    again.save_pretrained(tmp_path, state_dict=state)
    found = PrunedModel.from_pretrained(tmp_path)
    assert torch.equal(found(**inputs).logits, pruned(**inputs).logits)


def test_a_head_that_reads_no_dropped_token_is_refused():
    with pytest.raises(UserError, match="for heads that read every token"):
        made(head="sequence")


@pytest.mark.parametrize("form", ["dense", "paper"])
def test_it_takes_part_where_processes_train_together(form, monkeypatch):
    """Where nothing is translated, gradients are 0 rather than none."""
    monkeypatch.setattr("thresher.distributed.distributed.is_initialized", lambda: True)
    pruned = made()
    if form == "paper":
        pruned = prune(pruned.model, PruningConfig(options={"gate": "paper"}, dropped="translate"))
        soften(pruned, 0.5)
    output = pruned.train()(**random_inputs(pruned.model, LENGTHS), dense=form == "dense")
    output.logits.square().sum().backward()
    assert (pruned.translator.weight.grad == 0).all()


def test_a_folder_without_its_translator_is_refused(tmp_path):
    pruned = made()
    pruned.translator = None
    pruned.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"incomplete: 'token_pruning\.translator\.\w+' is missing"):
        PrunedModel.from_pretrained(tmp_path)


def test_a_translator_of_0_changes_nothing():
    states, depths = torch.randn(6, 8), torch.tensor([0, 3, 1, 2, 3, 0])
    assert torch.equal(Translator(3, 8).of_depths(states, depths), states)
