"""Cache keys: pinned, so that no edit of a class makes finished artifacts unreachable unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gotd.config.schemas import Chunking, ModelConfig, TaskLimits
from gotd.data.microworld.toxic import ToxicMicroworld
from gotd.data.microworld.world import Microworld
from gotd.data.tasks.halves import TargetOfHalves
from gotd.data.tasks.labelled import LabelledTask
from gotd.data.tasks.toxicity import ToxicityTask
from gotd.data.tasks.zero_shot import ZeroShotTask
from gotd.embedding.encoders import TransformerEncoder
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.evaluation.fine_tuned import FineTuned
from gotd.evaluation.generation import GenerationSettings
from gotd.evaluation.loss_of_parts import LossOfParts
from gotd.evaluation.perplexity import PerplexitySettings
from gotd.evaluation.utility import UtilitySettings
from gotd.evaluation.zero_shot import Prompt, ZeroShot
from gotd.pipeline.steps import models, pools, selections
from gotd.pipeline.steps.models import predictions
from gotd.pipeline.steps.rows import task_rows
from gotd.pipeline.steps.toxicity import scorer
from gotd.pipeline.token_budget import TokenBudget
from gotd.selectors.curated_tapt import CuratedTAPT
from gotd.selectors.dsir import DSIR
from gotd.selectors.got_d import GotD
from gotd.selectors.got_d_clusters import GotDClusters
from gotd.selectors.got_d_path import GotDPath
from gotd.selectors.least_toxic import LeastToxic
from gotd.selectors.nearest import Nearest
from gotd.selectors.oracle import Oracle
from gotd.selectors.random import AllDomains, Random, RandomInDomain
from gotd.selectors.round_robin import RoundRobin
from gotd.selectors.target_itself import TargetItself
from gotd.selectors.tsds import TSDS
from gotd.storage.artifacts import Step, canonical_json
from gotd.storage.keys import added_later, identity, key_fields
from gotd.storage.seeds import derive_seeds
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.causal_models import CausalSpec
from gotd.training.classifier import FineTuneSettings
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import ModelSpec
from gotd.training.scorer import ScorerSettings, TrainedScorer

TASK: dict[str, Any] = {
    "name": "sst2",
    "text_columns": ("sentence",),
    "label_kind": "class",
    "classes": 2,
    "metrics": ("accuracy",),
    "headline": "accuracy",
    "reported_splits": {"validation": "validation"},
}
SEEDS = derive_seeds(0)
RATES: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 1.0}
SCORER = TrainedScorer(spec=ModelSpec(), settings=ScorerSettings(**RATES), seed=0)
WORLD = Microworld(seed=3)


class Comments:
    """A source of labelled comments."""

    name = "comments"

    def tasks(self) -> list[str]:
        return ["wiki_comments"]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}


def base_step() -> Step:
    config = ModelConfig(name="micro")
    return models.base_model(WORLD, config, ModelSpec(), MaskedLMSettings(**RATES), 0)


def predictions_step() -> Step:
    rows = task_rows(WORLD, LabelledTask(**TASK), TaskLimits(), "clean", 0)
    return predictions(base_step(), rows, LabelledTask(**TASK), FineTuneSettings(**RATES), SEEDS)


def pre_fine_tuned_step() -> Step:
    return models.pre_fine_tuned(base_step(), base_step(), MaskedLMSettings(**RATES), "arm", SEEDS)


def pool_step(min_chars: int = 0) -> Step:
    return pools.pool("candidates", WORLD.candidates(), Chunking(min_chars=min_chars))


def embeddings_step() -> Step:
    return pools.embeddings(pool_step(), TransformerEncoder("e", "minilm"), LocalEngine())


def fitted_encoder_step() -> Step:
    sides = {"target": pool_step(), "candidates": pool_step()}
    return pools.fitted_encoder(TfidfSvdEncoder(), sides, 1000)


def scored_step() -> Step:
    sides = {"target": pool_step(), "candidates": pool_step()}
    return selections.scored(DSIR(), "dsir", sides, 10, 3, LocalEngine())


def selection_step(tokens: bool = False) -> Step:
    sides = {"target": pool_step(), "candidates": pool_step()}
    counted = TokenBudget(1000, 10, base_step()) if tokens else None
    return selections.selection(scored_step(), DSIR(), sides, 10, [], 3, LocalEngine(), counted)


KEYS: dict[str, tuple[Callable[[], Any], str]] = {
    "Random": (lambda: identity(Random()), "72c33b02a27e"),
    "RandomInDomain": (lambda: identity(RandomInDomain()), "aaf9e1c6ea4f"),
    "AllDomains": (lambda: identity(AllDomains()), "608ded792aea"),
    "Nearest": (lambda: identity(Nearest()), "296d179ee61e"),
    "DSIR": (lambda: identity(DSIR()), "840f66d6113d"),
    "DSIR with quality_filter": (lambda: identity(DSIR(quality_filter="paper")), "9fab0487729d"),
    "CuratedTAPT": (lambda: identity(CuratedTAPT()), "2246407120ec"),
    "RoundRobin": (lambda: identity(RoundRobin()), "d527ceaa485b"),
    "TSDS": (lambda: identity(TSDS()), "fa4ceb16c22d"),
    "Oracle": (lambda: identity(Oracle(domains=("a",))), "0ecdf0847d6d"),
    "LeastToxic": (lambda: identity(LeastToxic()), "d253933ea9f3"),
    "TargetItself": (lambda: identity(TargetItself()), "0b3547d9f29f"),
    "GotD": (lambda: identity(GotD()), "cce851f73118"),
    "GotDPath": (lambda: identity(GotDPath(weight=0.9)), "84086f7eaa77"),
    "GotDClusters": (lambda: identity(GotDClusters()), "9277b43f713c"),
    "MaskedLMSettings": (lambda: identity(MaskedLMSettings(**RATES)), "127f37f50363"),
    "CausalLMSettings": (lambda: identity(CausalLMSettings(**RATES)), "6dce12144565"),
    "FineTuneSettings": (lambda: identity(FineTuneSettings(**RATES)), "10e36e01d1f3"),
    "ScorerSettings": (lambda: identity(ScorerSettings(**RATES)), "3432c0042218"),
    "ModelSpec": (lambda: identity(ModelSpec()), "70820c32962b"),
    "CausalSpec": (lambda: identity(CausalSpec()), "39ccabe2c6ed"),
    "Task": (lambda: identity(LabelledTask(**TASK)), "b758e3b58526"),
    "Task with a split to choose on": (
        lambda: identity(LabelledTask(**TASK, choice_split="dev")),
        "54d8aada8654",
    ),
    "ZeroShotTask": (lambda: identity(ZeroShotTask(**TASK)), "12a22d609235"),
    "ToxicityTask": (lambda: identity(ToxicityTask()), "e169d2e568e8"),
    "TargetOfHalves": (lambda: identity(TargetOfHalves("gap", missing="math")), "501cb935d102"),
    "LossOfParts": (lambda: LossOfParts().key_fields(), "231f49fada91"),
    "Prompt": (lambda: identity(Prompt("{text}")), "089e5d609493"),
    "GenerationSettings": (lambda: identity(GenerationSettings()), "2e8949fbe6f9"),
    "PerplexitySettings": (lambda: identity(PerplexitySettings()), "b1cb2c912fb8"),
    "UtilitySettings": (lambda: identity(UtilitySettings(tasks=("boolq",))), "3fb6c0455e5e"),
    "FineTuned": (lambda: FineTuned().key_fields(), "eaf398e5211a"),
    "FineTuned with row_noise": (lambda: FineTuned(row_noise=True).key_fields(), "afd872abef65"),
    "ZeroShot": (lambda: ZeroShot().key_fields(), "c5064c179e14"),
    "TfidfSvdEncoder": (lambda: TfidfSvdEncoder().identity(), "9fed0542306a"),
    "Chunking": (lambda: key_fields(Chunking()), "84ebe75da6c0"),
    "Chunking with min_chars": (lambda: key_fields(Chunking(min_chars=7)), "05ae836444c3"),
    "TaskLimits": (lambda: key_fields(TaskLimits()), "a4ad5b49a32a"),
    "TaskLimits with reported_rows": (
        lambda: key_fields(TaskLimits(reported_rows=7)),
        "4a1117baa850",
    ),
    "Microworld": (lambda: WORLD.identity(), "4df460e6baf8"),
    "ToxicMicroworld": (lambda: ToxicMicroworld().identity(), "8e3c8cc654cc"),
    "base_model step": (lambda: base_step().key, "b9f3fc1207ba"),
    "scorer step": (lambda: scorer(SCORER, Comments()).key, "f5ea7b560849"),
    "predictions step": (lambda: predictions_step().key, "d85d60e66d53"),
    "pre_fine_tuned step": (lambda: pre_fine_tuned_step().key, "7c4080b49fb2"),
    "pool step": (lambda: pool_step().key, "78c1f368b9b0"),
    "fitted_encoder step": (lambda: fitted_encoder_step().key, "2eb138703460"),
    "pool step with min_chars": (lambda: pool_step(7).key, "18519bc873cc"),
    "scored step": (lambda: scored_step().key, "9b7851ec0993"),
    "selection step": (lambda: selection_step().key, "ab17609fe22c"),
    "selection step in tokens": (lambda: selection_step(tokens=True).key, "286ef0883957"),
    "embeddings step": (
        lambda: embeddings_step().key,
        "be0079cb64f5",
    ),
}
"""What enters a key, and the first twelve characters of its SHA-256."""

REMEDY = """the cache key of {name} changed from {old} to {new}; old artifacts are lost.
- A class was renamed: leave its `key_name` as it was.
- A field was renamed: a rename changes the key. Undo it, or accept that artifacts are made again.
- A field was added: declare it by `added_later(default)`, and it enters the key only when set.
- The results change: raise the `version` of the class or of the step, and pin {new} here.
It is now {value}"""


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_pinned(name):
    make, old = KEYS[name]
    value = canonical_json(make())
    new = hashlib.sha256(value.encode()).hexdigest()[:12]
    assert new == old, REMEDY.format(name=name, old=old, new=new, value=value)


@dataclasses.dataclass(frozen=True)
class Before:
    key_name: ClassVar[str] = "Before"

    epsilon: float = 0.1
    device: str = "auto"


@dataclasses.dataclass(frozen=True)
class Renamed:
    key_name: ClassVar[str] = "Before"

    epsilon: float = 0.1
    late: int | None = added_later(None)


@dataclasses.dataclass(frozen=True)
class Subclass(Before):
    pass


def test_a_renamed_class_keeps_its_key():
    assert identity(Renamed()) == identity(Before())


def test_a_field_added_later_is_in_the_key_only_when_it_is_set():
    assert "late" not in identity(Renamed())
    assert identity(Renamed(late=3))["late"] == 3


def test_a_subclass_without_a_key_name_is_an_error():
    with pytest.raises(TypeError, match='add `key_name: ClassVar\\[str\\] = "Subclass"`'):
        identity(Subclass())


def test_fields_that_change_only_speed_are_in_no_key():
    assert identity(Before(device="cuda")) == identity(Before())


def test_a_path_enters_by_its_content(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class WithFile:
        key_name: ClassVar[str] = "WithFile"

        scores: Path

    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    assert identity(WithFile(tmp_path / "a")) == identity(WithFile(tmp_path / "b"))
    (tmp_path / "b").write_text("other")
    assert identity(WithFile(tmp_path / "a")) != identity(WithFile(tmp_path / "b"))
