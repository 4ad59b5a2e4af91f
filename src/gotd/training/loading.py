"""Load configuration, tokenizer and network of a model: of one commit, and none of its code.

Every model that this program reads comes through here, so that a damaged folder, a tokenizer
of another model and code in a folder are refused in one line that names the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gotd.storage.environment import check_docstrings
from gotd.storage.hub_models import model_folder

ADAPTER = "adapter_config.json"
"""File by which `transformers` loads another model than that of the folder."""


def device_of(name: str) -> str:
    """Return a device by its name; ``auto``: the GPU, or the processor where there is none."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_config(model: Path | str, revision: str | None = None) -> Any:
    """Load the configuration of a model.

    Args:
        model: A model folder or Hub name.
        revision: Its commit; ``None``: the newest that is known here.

    Raises:
        OSError: If there is no such model.
        ValueError: If it needs code of its own, or its configuration is damaged.
    """
    from transformers import AutoConfig

    with _errors_of(model):
        place = _place(model, revision, weights=False)
        return AutoConfig.from_pretrained(place, trust_remote_code=False)


def load_any_tokenizer(model: Path | str, revision: str | None = None) -> Any:
    """Load the tokenizer of a model, if it is that of its network.

    Args:
        model: A model folder or Hub name.
        revision: Its commit; ``None``: the newest that is known here.

    Raises:
        OSError: If there is no such model.
        ValueError: If it has no tokenizer or that of another network, or needs code of its own.
    """
    from transformers import AutoTokenizer

    with _errors_of(model):
        place = _place(model, revision, weights=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    words = tokenizer.get_vocab()
    if not set(words) - set(tokenizer.all_special_tokens):
        raise ValueError(
            f"the model {model} has no tokenizer, so every word would be unknown; copy the files "
            "of its tokenizer (tokenizer.json) into it"
        )
    known = _rows_of_embeddings(model, revision)
    if known is not None and max(words.values()) >= known:
        raise ValueError(
            f"the tokenizer of {model} has the number {max(words.values())}, but the network knows "
            f"{known} tokens; it is the tokenizer of another model"
        )
    return tokenizer


def load_network(
    network_class: Any,
    model: Path | str,
    may_be_missing: tuple[str, ...] = (),
    revision: str | None = None,
    **options: Any,
) -> tuple[Any, bool]:
    """Load a network from safetensors, in float32 and with the attention that trains fastest.

    Args:
        network_class: A class of `transformers`, such as ``AutoModel``.
        model: A model folder or Hub name.
        may_be_missing: Beginnings of the names of weights that the file may lack; they come
            from the global generator.
        revision: Its commit; ``None``: the newest that is known here.
        options: Options of ``from_pretrained`` that differ.

    Returns:
        The network, and whether such weights were missing.

    Raises:
        OSError: If there is no such model.
        ValueError: If any other weight is missing, has another shape or is not finite, or the
            model needs code of its own.
    """
    import torch

    from gotd.training.dropout import use_fast_dropout
    from gotd.training.layers import use_fast_layers

    # On CPU, SDPA is slow with dropout.
    attention = "eager" if device_of("auto") == "cpu" else "sdpa"
    options = {"dtype": torch.float32, "attn_implementation": attention, **options}
    with _errors_of(model):
        network, info = network_class.from_pretrained(
            _place(model, revision, weights=True),
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    missing = info["missing_keys"]
    others = sorted(key for key in missing if not key.startswith(may_be_missing))
    if others or info["mismatched_keys"]:
        lacking = others or sorted(map(str, info["mismatched_keys"]))
        raise ValueError(
            f"{model} lacks {len(lacking)} weights of its architecture, for instance "
            f"{lacking[0]!r}; the file is damaged or belongs to another configuration"
        )
    for name, weights in network.named_parameters():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise ValueError(f"the model {model} is damaged: its weights {name} are not finite")
    use_fast_layers(network)
    use_fast_dropout(network)
    return network, bool(missing)


def check_folder(model: Path) -> None:
    """Raise if a model folder does not load as it stands.

    Raises:
        ValueError: If it holds an adapter of another model, or a damaged configuration.
    """
    if (model / ADAPTER).is_file():
        raise ValueError(
            f"the folder {model} holds an adapter ({ADAPTER}), which loads another model; merge "
            "it into its base (merge_and_unload) and save that"
        )
    try:
        config = json.loads((model / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ValueError(
            f"{model / 'config.json'} is damaged ({_line(error)}); copy the model again"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{model / 'config.json'} is damaged; copy the model again")


def _place(model: Path | str, revision: str | None, weights: bool) -> Path:
    """Return the folder of a model, all of its files from one commit."""
    place = Path(model)
    if not place.is_dir():
        place = model_folder(str(model), revision, weights)
    check_folder(place)
    return place


def _rows_of_embeddings(model: Path | str, revision: str | None) -> int | None:
    """Return how many tokens the network knows; ``None`` for a tokenizer without a network."""
    try:
        known = getattr(load_config(model, revision), "vocab_size", None)
    except (OSError, ValueError):
        return None
    return known if isinstance(known, int) else None


@contextmanager
def _errors_of(model: Path | str) -> Iterator[None]:
    """Raise what goes wrong when a model is loaded as one line that names it."""
    check_docstrings()
    try:
        yield
    except OSError as error:
        raise OSError(f"the model {model} cannot be loaded: {_line(error)}") from error
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # safetensors, tokenizers and torch have classes of their own
        if "out of memory" in str(error):
            raise
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the model {model} needs code of its own, which is never run; take a model of "
                "an architecture that transformers has"
            ) from error
        raise ValueError(
            f"the model {model} is damaged or of an unknown kind ({type(error).__name__}: "
            f"{_line(error)}); copy it again"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
