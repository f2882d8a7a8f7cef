"""What sentence-transformers keeps beside a model: read without running any of it, and written again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, WEIGHTS_NAME

from thresher.errors import UserError
from thresher.families import family_for
from thresher.folders.read import file_of, read_json, refuse_link
from thresher.folders.weights import check_bytes, fetch, look
from thresher.heads import EmbeddingHead, Head, SequenceHead, head_for
from thresher.heads.pooling import ACTIVATIONS, ATTRIBUTE, MODES, Dense, Layout, Normalize

MODULES = "modules.json"  # a folder that has it is one of sentence-transformers
OF_ALL = "config_sentence_transformers.json"
OF_TRANSFORMER = (
    "sentence_bert_config.json",  # nearly always; the others are of the oldest versions
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How versions before the sixth name the modes of pooling, in the order in which several are joined."""
PLACE = re.compile(r"(\w[\w.-]*)?")  # of a module: the folder itself, or one in it
LAST = ("Dense", "Normalize")
ORDER = "Thresher knows sentence-transformers' own Transformer, then Pooling, then Dense and Normalize"


def embeds(where: str, **hub: Any) -> bool:
    """Whether a folder or hub repository is a sentence-transformers model that makes vectors of texts."""
    return any(kind == "Pooling" for kind, _, _ in _modules(where, hub))


def attach(model: PreTrainedModel, where: str, pickled: bool = False, **hub: Any) -> None:
    """Have a model keep the layout of the sentence-transformers folder that it came from, where it did.

    Parameters
    ----------
    model : PreTrainedModel
        `thresher.heads.pooling.layout_of` gives its layout from then on: `EmbeddingHead` makes vectors by it,
        and `thresher.store.save` writes its files.
    where : str
        What `thresher.folders.locate.locate` answered.
    pickled : bool
        Take weights in PyTorch's older format too, which are read without running what they ask for.
    **hub
        Options of `thresher.folders.locate.ASKING`.

    Raises
    ------
    UserError
        As of `read_layout`.
    """
    dim = family_for(model.config).sizes(model.config)[1]
    head = head_for(type(model).__name__)
    if (layout := read_layout(where, head, dim, pickled, **hub)) is not None:
        setattr(model, ATTRIBUTE, layout)


def read_layout(where: str, head: type[Head], dim: int, pickled: bool = False, **hub: Any) -> Layout | None:
    """The layout of a sentence-transformers folder: how a model without a head makes vectors, and the files
    of that or of a cross-encoder. None where a model with this head has no such thing there.

    Parameters
    ----------
    where : str
        What `thresher.folders.locate.locate` answered.
    head : type of Head
    dim : int
        Width of the model's states.
    pickled, **hub
        As of `attach`.

    Raises
    ------
    UserError
        If the folder has a module that Thresher does not know, or one with settings that it cannot follow.
    """
    modules = _modules(where, hub)
    if not modules or head not in (EmbeddingHead, SequenceHead):
        return None
    folder = _Folder(where, hub, (SAFE_WEIGHTS_NAME, WEIGHTS_NAME)[: 1 + pickled])
    of_all = folder.json(OF_ALL)
    if head is SequenceHead and of_all.get("model_type") != "CrossEncoder":
        return None
    _check_order(where, modules, ("Transformer", "Pooling") if head is EmbeddingHead else ("Transformer",))
    folder.keep(MODULES)
    limit = _transformer(folder, modules[0][1])
    if head is SequenceHead:
        return Layout((), (), folder.kept, limit)
    modes, width = _pooling(folder, modules[1][1], dim)
    after: list[Dense | Normalize] = []
    for kind, place, _ in modules[2:]:
        settings = folder.json(f"{place}/config.json", "sentence_embedding")
        if kind == "Normalize":
            after.append(Normalize())
        else:
            after.append(dense := _dense(folder, place, settings, width))
            width = len(dense.weight)
    return Layout(modes, tuple(after), folder.kept, limit, folder.count(OF_ALL, of_all, "truncate_dim"))


def write_layout(layout: Layout, folder: Path) -> None:
    """Write a layout's files beside a model, which lies in the folder itself."""
    for name, content in layout.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@dataclass
class _Folder:
    """A folder, and what is kept of it: the files that were read."""

    where: str
    hub: dict[str, Any]
    weights: tuple[str, ...]  # names of files of weights
    kept: dict[str, bytes] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        file = file_of(self.where, name, **self.hub)
        if file is not None and Path(self.where).is_dir():
            refuse_link(Path(file), Path(self.where))
        return file

    def keep(self, name: str) -> Any:
        """What a JSON file holds; an empty object where there is none."""
        if (file := self.find(name)) is None:
            return {}
        content = read_json(file)
        self.kept[name] = Path(file).read_bytes()
        return content

    def json(self, name: str, feature: str | None = None) -> dict[str, Any]:
        """A JSON object. Where it names a feature to read or to write, that must be `feature`."""
        if not isinstance(content := self.keep(name), dict):
            raise self.refused(name, "is no JSON object")
        for key in ("module_input_name", "module_output_name"):
            if feature is not None and content.get(key) not in (None, feature):
                raise self.refused(name, f"has {key} {content[key]!r:.100}, where '{feature}' is known alone")
        return content

    def count(self, name: str, settings: dict[str, Any], key: str) -> int | None:
        value = settings.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise self.refused(name, f"has {key} {value!r:.100}, which must be a number of 1 or more")
        return value

    def refused(self, name: str, why: str) -> UserError:
        return UserError(
            f"'{self.where}': {name} {why}. Change it in SentenceTransformer, and save the model again."
        )


Module = tuple[str, str, str]  # name of its class, its folder, its class as the file has it


def _modules(where: str, hub: dict[str, Any]) -> list[Module]:
    """The modules of a sentence-transformers folder, in their order; none where it is none."""
    if (file := file_of(where, MODULES, **hub)) is None:
        return []
    content = read_json(file)
    wanted = f"{file} is damaged: it must list modules, each with a 'type' and with the 'path' of a folder."
    if not isinstance(content, list):
        raise UserError(wanted)
    found = []
    for module in content:
        kind, place = (module.get(key) if isinstance(module, dict) else None for key in ("type", "path"))
        if not (isinstance(kind, str) and isinstance(place, str) and PLACE.fullmatch(place)):
            raise UserError(wanted)
        own = kind.startswith("sentence_transformers.")
        found.append((kind.rsplit(".", 1)[-1] if own else kind, place, kind))
    return found


def _check_order(where: str, modules: list[Module], first: tuple[str, ...]) -> None:
    for index, (kind, _, full) in enumerate(modules):
        known = first[index : index + 1] or (LAST if len(first) > 1 else ())
        if kind not in known:
            raise UserError(
                f"'{where}' has the module '{full:.100}' in place {index + 1} of its {MODULES}. {ORDER}. To "
                "prune the encoder without it, save that by itself: "
                f"AutoModel.from_pretrained('{where}').save_pretrained(other)."
            )
    if len(modules) < len(first):
        raise UserError(f"'{where}' has no module '{first[len(modules)]}' in its {MODULES}. {ORDER}.")


def _transformer(folder: _Folder, place: str) -> int | None:
    """Where texts are cut, if the settings of the encoder say so."""
    if place:
        raise UserError(
            f"'{folder.where}' has its encoder in '{place}'. Have it in the folder itself: "
            f"SentenceTransformer('{folder.where}').save_pretrained(other)."
        )
    name = next((name for name in OF_TRANSFORMER if folder.find(name)), OF_TRANSFORMER[0])
    settings = folder.json(name)
    modalities = settings.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    if text is not None and text not in (
        {"method": "forward", "method_output_name": output} for output in ("last_hidden_state", "logits")
    ):
        raise folder.refused(name, f"takes {text!r:.200} of the encoder, not its last hidden states")
    words = folder.find("tokenizer.json")
    if settings.get("do_lower_case") and not (words and _lowers(read_json(words))):
        raise folder.refused(name, "has texts in lower case, and the tokenizer does not see to that")
    limit = folder.count(name, settings, "max_seq_length")
    return _limit_of_tokenizer(folder) if limit is None else limit


def _limit_of_tokenizer(folder: _Folder) -> int | None:
    """Where the tokenizer's settings have texts cut, which is where newer versions write it."""
    file = folder.find("tokenizer_config.json")
    settings = {} if file is None else read_json(file)
    limit = settings.get("model_max_length") if isinstance(settings, dict) else None
    return limit if type(limit) is int and limit > 0 else None


def _lowers(settings: Any) -> bool:
    """Whether a tokenizer's file, or its normalizer, makes letters small."""
    if not isinstance(settings, dict):
        return False
    parts = settings.get("normalizers", [])
    return (
        settings.get("type") == "Lowercase"
        or settings.get("lowercase") is True
        or _lowers(settings.get("normalizer"))
        or (isinstance(parts, list) and any(map(_lowers, parts)))
    )


def _pooling(folder: _Folder, place: str, dim: int) -> tuple[tuple[str, ...], int]:
    """The modes of pooling, and the width of what they make."""
    name = f"{place}/config.json"
    settings = folder.json(name)
    if not settings:
        raise UserError(f"'{folder.where}' is incomplete: '{name}' is missing.")
    older = [mode for key, mode in OLD_MODES.items() if settings.get(key)]
    modes = settings.get("pooling_mode", older or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in OLD_MODES.values() for mode in modes):
        raise folder.refused(name, f"has pooling_mode {modes!r:.100}, which must be of: {', '.join(MODES)}")
    for key in ("embedding_dimension", "word_embedding_dimension"):
        if settings.get(key, dim) != dim:
            raise folder.refused(name, f"has {key} {settings[key]!r:.100}, and the encoder has {dim}")
    return tuple(modes), dim * len(modes)


def _dense(folder: _Folder, place: str, settings: dict[str, Any], width: int) -> Dense:
    name = f"{place}/config.json"
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    package, _, called = activation.rpartition(".") if isinstance(activation, str) else ("", "", "")
    if not package.startswith("torch.nn") or called not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise folder.refused(name, f"has activation_function {activation!r:.100}, not of torch.nn {known}")
    places = [folder.find(f"{place}/{file}") for file in folder.weights]
    files = [file for file in places if file is not None]
    if not files:
        raise UserError(f"'{folder.where}' is incomplete: '{place}/{SAFE_WEIGHTS_NAME}' is missing.")
    stored = look(files[:1])
    adds, outputs = settings.get("use_residual") is True, settings.get("out_features")
    wanted: dict[str, tuple[Any, ...]] = {"linear.weight": (outputs, width)}
    if settings.get("bias", True):
        wanted["linear.bias"] = (outputs,)
    if adds and outputs != width:
        wanted["residual.weight"] = (outputs, width)
    for key, shape in wanted.items():
        if key not in stored or stored[key].shape != shape or not stored[key].itemsize:
            raise folder.refused(name, f"asks for numbers '{key}' {list(shape)}, which are not beside it")
    check_bytes(chosen := {key: stored[key] for key in wanted})
    tensors = fetch(chosen)
    if bad := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UserError(f"'{folder.where}' is damaged: '{bad[0]}' in '{place}' holds NaN or infinity.")
    folder.kept[f"{place}/{SAFE_WEIGHTS_NAME}"] = save(tensors, {"format": "pt"})
    weight, bias, residual = map(tensors.get, ("linear.weight", "linear.bias", "residual.weight"))
    assert weight is not None
    return Dense(weight, bias, called, residual, adds)
