"""The folder of a pruned model, written and opened: the part of `PrunedModel` that does so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from thresher import store
from thresher.carried import Translator
from thresher.config import PruningConfig
from thresher.engines import AUTO
from thresher.errors import UserError
from thresher.folders import trained as state
from thresher.folders.locate import ASKING
from thresher.folders.read import naming
from thresher.generating import Generating
from thresher.pruners import all_options


class Saving(Generating):
    """The part of `PrunedModel` that is asked for its folder."""

    pruning: PruningConfig
    metadata: dict[str, Any]
    translator: Translator | None
    for_inference: Any

    def learned(self) -> dict[str, Tensor]:
        """What is learned of pruning: the pruner's tensors, and those of a translator, by name."""
        found = dict(self.pruner.state_dict())
        if self.translator is not None:
            found |= self.translator.state_dict(prefix=state.TRANSLATOR)
        return found

    def load_learned(self, tensors: dict[str, Tensor]) -> None:
        """Take what another model has learned of pruning, as of `learned`."""
        store.load_learned(self.pruner, self.translator, tensors)

    def save_pretrained(
        self,
        path: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Write a folder that `from_pretrained` opens pruned, and stock transformers opens dense.

        Parameters
        ----------
        path : str or Path
            Created if need be. The tokenizer is saved beside by ``tokenizer.save_pretrained(path)``.
        is_main_process : bool
            False writes nothing: for all but one of several processes that train.
        state_dict : dict, optional
            In place of ``self.state_dict()``, where another process holds the weights.
        **options
            ``max_shard_size`` or ``save_function`` of transformers' ``save_pretrained``.

        Raises
        ------
        UserError
            If `for_inference` has converted the weights, or for another option.
        """
        if (obstacle := self._obstacle()) is not None:
            raise UserError(obstacle)
        if options.pop("safe_serialization", True) is False:
            raise UserError("A pruned model is saved as safetensors alone; leave out safe_serialization.")
        if unknown := sorted(set(options) - {"max_shard_size", "save_function"}):
            raise UserError(
                f"PrunedModel.save_pretrained takes no '{unknown[0]}'. To upload what it wrote, "
                "call model.push_to_hub(name)."
            )
        if not is_main_process:
            return
        learned = self.learned()
        if state_dict is not None:
            options["state_dict"], learned = state.parts(state_dict)
        store.save(self.model, learned, self._block(), path, **options)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, precision: str | None = None, engine: str | None = None, **hub: Any
    ) -> Self:
        """Open a folder, or a hub repository, that `save_pretrained` wrote, or Trainer of such a model.

        Parameters
        ----------
        path : str or Path
        precision, engine : str, optional
            As of `for_inference`. With neither, the model can be trained and saved.
        **hub
            How the hub is asked: ``revision``, ``token``, ``cache_dir``, ``subfolder``, ``local_files_only``
            or ``force_download``, as of transformers.

        Raises
        ------
        UserError
            If there is no such folder, it holds no pruned model, or another version wrote it.
        """
        if unknown := sorted(set(hub) - set(ASKING)):
            raise UserError(
                f"PrunedModel.from_pretrained takes no '{unknown[0]}': choose a precision "
                "(fp32, bf16, int8), or open the model and move it: model.to(device or dtype)."
            )
        with naming(path):
            model, tensors, block = store.load(path, **hub)
            make: Any = cls
            pruned: Self = make(model, PruningConfig.from_dict(block), block.get("metadata"))
        pruned.load_learned(tensors)
        if precision is None and engine is None:
            return pruned.eval()
        return pruned.for_inference(precision or "fp32", engine or AUTO)

    def _block(self) -> dict[str, Any]:
        """What the folder says of the pruning, as JSON values."""
        pruning = replace(self.pruning, options=all_options(self.pruning))
        return pruning.to_dict() | {"metadata": self.metadata}

    def _obstacle(self) -> str | None:
        """Why the model cannot be saved, if it cannot."""
        if self.precision is not None:
            return "This model was made ready for inference; load it again without a precision to save it."
        adapted = any(hasattr(module, "base_layer") for module in self.model.modules())
        if adapted or hasattr(self.model, "get_base_model"):
            return "An adapter cannot be saved pruned: merge it first (merge_and_unload() of the PeftModel)."
        return None
