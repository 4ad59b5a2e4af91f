import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from gotd.training import trainer
from gotd.training.classifier import FineTuneSettings, FineTuning, decide, fine_tune, predict
from gotd.training.heads import TextClassifier, load_classifier, mean_over
from gotd.training.labels import LabelledTask, read_labels
from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import load_encoder, load_tokenizer
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule

SEEDS = TrainingSeeds.derive(1)
SETTINGS = {
    "learning_rate": 3e-3,
    "epochs": 4,
    "global_batch_size": 16,
    "per_device_batch_size": 16,
    "max_length_tokens": 48,
    "head": "mean",
}


def accuracy(predictions, labels):
    return float((predictions == labels).mean())


def negative_error(predictions, labels):
    return -float(np.abs(predictions - labels).mean())


def run(base, rows, folder, validation=None, regression=False, seed=1, score=None, **options):
    settings = FineTuneSettings(**SETTINGS | options)
    score = score or (negative_error if regression else accuracy)
    held_out = rows.slice(0, 32) if validation is None else validation
    work = folder.parent / f"{folder.name}-work"
    seeds = TrainingSeeds.derive(seed)
    task = LabelledTask(rows.slice(32), held_out, 2, regression, score)
    return fine_tune(base, task, settings, seeds, work, folder)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def with_pooler(tiny_base, tmp_path_factory):
    """A base that knows a pooler, as published encoders do, beside its head."""
    folder = tmp_path_factory.mktemp("with_pooler")
    network = AutoModel.from_pretrained(tiny_base)
    torch.nn.init.normal_(
        network.pooler.dense.weight, std=0.3, generator=torch.Generator().manual_seed(5)
    )
    network.save_pretrained(folder)
    load_tokenizer(tiny_base).save_pretrained(folder)
    return folder


def test_a_head_depends_on_its_own_seed_alone(tiny_base, with_pooler, labelled):
    """Neither a base without a pooler, which draws one, nor another order moves the head."""

    def head(base, seeds):
        task = LabelledTask(labelled, labelled, 2, False, accuracy)
        module = FineTuning(base, task, FineTuneSettings(**SETTINGS), seeds)
        module.initialise()
        return module.network.classifier.weight.detach()

    wanted = head(tiny_base, SEEDS)
    assert torch.equal(head(with_pooler, SEEDS), wanted)
    torch.manual_seed(99)
    assert torch.equal(head(tiny_base, TrainingSeeds(7, 7, SEEDS.initialisation)), wanted)
    assert not torch.equal(head(tiny_base, TrainingSeeds(1, 1, 7)), wanted)


def test_a_pooler_that_the_base_knows_is_kept(tiny_base, with_pooler, labelled):
    def pooler(base, initialisation):
        task = LabelledTask(labelled, labelled, 2, False, accuracy)
        settings = FineTuneSettings(**SETTINGS | {"head": "pooler"})
        module = FineTuning(base, task, settings, TrainingSeeds(1, 1, initialisation))
        module.initialise()
        return module.network.encoder.pooler.dense.weight.detach()

    known = load_file(with_pooler / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(pooler(with_pooler, 1), known)
    assert torch.equal(pooler(tiny_base, 1), pooler(tiny_base, 1))
    assert not torch.equal(pooler(tiny_base, 1), pooler(tiny_base, 2))


@pytest.mark.parametrize("head", ["mean", "pooler"])
def test_learns_and_predicts_in_row_order(tiny_base, labelled, tmp_path, head):
    state = torch.get_rng_state()
    # 64 rows in batches of 16: 4 steps an epoch.
    report = run(tiny_base, labelled, tmp_path / "out", head=head, epochs=8)
    assert torch.equal(state, torch.get_rng_state())
    assert report["steps"] == 32
    assert [epoch for epoch, _ in report["validation"]] == list(range(1, 9))
    assert max(score for _, score in report["validation"]) > 0.9
    predictions = predict(tmp_path / "out", labelled)
    assert predictions.dtype == np.int64
    truth = labelled["label"].to_numpy()
    assert accuracy(predictions[:32], truth[:32]) == max(s for _, s in report["validation"])
    order = np.random.default_rng(0).permutation(96)
    shuffled = predict(tmp_path / "out", labelled.take(pa.array(order)), batch_size=7)
    assert np.array_equal(shuffled, predictions[order])
    assert not (tmp_path / "out-work").exists()


def test_siamese_head_compares_and_mean_head_serves_single_texts(
    tiny_base, paired, labelled, tmp_path
):
    report = run(
        tiny_base, paired, tmp_path / "pairs", head="siamese", epochs=25, learning_rate=0.01
    )
    assert max(score for _, score in report["validation"]) > 0.8
    assert load_classifier(tmp_path / "pairs")[0].classifier.in_features == 4 * 32
    with pytest.raises(ValueError, match="no text_pair"):
        predict(tmp_path / "pairs", labelled)
    run(tiny_base, labelled, tmp_path / "single", head="siamese")
    run(tiny_base, labelled, tmp_path / "mean", head="mean")
    usages = [load_classifier(tmp_path / name)[1]["head"] for name in ("single", "mean")]
    assert usages == ["mean", "mean"]


def test_regression_predicts_scores(tiny_base, labelled, tmp_path):
    rows = labelled.set_column(3, "label", pc.multiply(labelled["label"], 3.5))
    report = run(tiny_base, rows, tmp_path / "out", regression=True, epochs=20)
    predictions = predict(tmp_path / "out", rows)
    assert predictions.dtype == np.float64
    assert np.corrcoef(predictions[:32], rows["label"].to_numpy()[:32])[0, 1] > 0.8
    assert report["validation"][-1][1] > report["validation"][0][1]


def test_means_ignore_padding_and_special_tokens():
    hidden = torch.tensor([[[9.0], [1.0], [3.0], [9.0]], [[9.0], [9.0], [9.0], [9.0]]])
    content = torch.tensor([[False, True, True, False], [False] * 4])
    assert mean_over(hidden, content).tolist() == [[2.0], [0.0]]


def test_epoch_is_chosen_by_the_scores(tiny_base, labelled, tmp_path):
    scores = iter([0.1, 0.7, float("nan"), 0.7, 0.2, 0.3, 0.3, float("nan")])
    best = run(tiny_base, labelled, tmp_path / "b", score=lambda p, t: next(scores))
    assert best["chosen_epoch"] == 2
    last = run(
        tiny_base, labelled, tmp_path / "l", score=lambda p, t: next(scores), choose="last_epoch"
    )
    assert last["chosen_epoch"] == 4
    assert weights(tmp_path / "b") != weights(tmp_path / "l")
    undefined = run(tiny_base, labelled, tmp_path / "u", score=lambda p, t: float("nan"))
    assert undefined["chosen_epoch"] == 1
    with pytest.raises(ValueError, match="needs validation rows"):
        fine_tune(
            tiny_base,
            LabelledTask(labelled, None, 2, False, accuracy),
            FineTuneSettings(**SETTINGS),
            SEEDS,
            tmp_path,
            tmp_path / "x",
        )


@pytest.mark.parametrize("stop", [3, 5, 8, 15])
def test_interrupted_run_reaches_the_same_bytes(tiny_base, labelled, tmp_path, monkeypatch, stop):
    """The score prefers the worst epoch, so the kept weights are older than the checkpoint."""
    options = {"checkpoint_every_steps": 2, "score": lambda p, t: -accuracy(p, t)}
    whole = run(tiny_base, labelled, tmp_path / "whole", **options)
    assert whole["chosen_epoch"] == 1
    original = StepModule.on_train_batch_end

    def crash(self, outputs, batch, batch_idx):
        original(self, outputs, batch, batch_idx)
        if self.step == stop:
            raise KeyError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(StepModule, "on_train_batch_end", crash)
        with pytest.raises(KeyError):
            run(tiny_base, labelled, tmp_path / "cut", **options)
    assert (tmp_path / "cut-work" / trainer.CHECKPOINT_FILE).exists()
    cut = run(tiny_base, labelled, tmp_path / "cut", **options)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert cut.pop("cost")["resumed"]
    whole.pop("cost")
    assert cut == whole


def test_update_does_not_depend_on_what_fits_on_a_device(calm_base, labelled, tmp_path):
    for per_device in (16, 5):
        folder = tmp_path / str(per_device)
        run(
            calm_base,
            labelled,
            folder,
            per_device_batch_size=per_device,
            dropout=0.0,
            choose="last_epoch",
        )
    whole, cut = [load_file(tmp_path / n / "model.safetensors") for n in ("16", "5")]
    for key in whole:
        torch.testing.assert_close(whole[key], cut[key], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("head", ["pooler", "mean"])
def test_base_and_untrained_pre_fine_tuning_start_equal(
    with_pooler, texts, labelled, tmp_path, head
):
    nothing = MaskedLMSettings(learning_rate=1e-3, max_length_tokens=48, epochs=0)
    pre_fine_tune(
        with_pooler, texts, nothing, TrainingSeeds.derive(3), tmp_path / "w", tmp_path / "warm"
    )
    base = run(with_pooler, labelled, tmp_path / "a", head=head)
    warm = run(tmp_path / "warm", labelled, tmp_path / "b", head=head)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert base["validation"] == warm["validation"]
    assert not warm["fresh_pooler"]


def test_published_way_gives_pre_fine_tuned_arms_a_fresh_pooler(
    with_pooler, texts, labelled, tmp_path
):
    published = MaskedLMSettings(
        learning_rate=1e-3, max_length_tokens=48, epochs=0, keep_pooler=False
    )
    pre_fine_tune(
        with_pooler, texts, published, TrainingSeeds.derive(3), tmp_path / "w", tmp_path / "warm"
    )
    report = run(tmp_path / "warm", labelled, tmp_path / "b", head="pooler", epochs=0)
    assert report["fresh_pooler"]
    pooler = "bert.pooler.dense.weight"
    fresh = load_file(tmp_path / "b" / "model.safetensors")[pooler]
    base = load_encoder(with_pooler)[0].pooler.dense.weight
    assert not torch.equal(fresh, base)


def test_fresh_head_is_a_function_of_the_seed_alone(tiny_base, calm_base):
    drawn = []
    for base, seed, noise in [(tiny_base, 1, 0), (calm_base, 1, 9), (tiny_base, 2, 0)]:
        torch.manual_seed(noise)
        network = TextClassifier(load_encoder(base)[0], "pooler", 2, 0.1)
        network.draw_fresh(seed, with_pooler=True)
        drawn.append((network.classifier.weight, network.encoder.pooler.dense.weight))
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))


def test_pooler_classifier_is_a_standard_model(tiny_base, labelled, tmp_path):
    run(tiny_base, labelled, tmp_path / "out", head="pooler")
    standard, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"]
    tokenizer = load_tokenizer(tmp_path / "out")
    inputs = tokenizer(labelled["text"].to_pylist(), return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = standard.eval()(**inputs).logits.numpy()
    assert np.array_equal(decide(logits, False), predict(tmp_path / "out", labelled))


def test_frozen_embeddings_stay(tiny_base, labelled, tmp_path):
    run(tiny_base, labelled, tmp_path / "out", freeze_embeddings=True)
    before = load_file(tiny_base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    frozen = [key for key in before if ".embeddings." in key]
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    moved = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(before[moved], after[moved])


@pytest.mark.parametrize("label", [-1.0, 2.0, 0.5, float("nan")])
def test_labels_out_of_range_are_refused(labelled, label):
    wrong = labelled.set_column(3, "label", pa.array([0.0, label] + [1.0] * 94))
    with pytest.raises(ValueError, match=r"train row 1 .*class in 0\.\.1"):
        read_labels(wrong, "train", 2, False)
    with pytest.raises(ValueError, match="column 'label'"):
        read_labels(labelled.drop_columns(["label"]), "train", 2, False)


def test_folder_without_classifier_is_refused(tiny_base, labelled):
    with pytest.raises(FileNotFoundError, match="not written by fine_tune"):
        predict(tiny_base, labelled)


@pytest.mark.parametrize("wrong", [{"head": "cls"}, {"choose": "test"}, {"dropout": 1.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FineTuneSettings(**SETTINGS | wrong)
