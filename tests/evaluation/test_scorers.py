import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from gotd.evaluation.scorers import detoxify
from gotd.evaluation.scorers.classifier import ClassifierScorer
from gotd.evaluation.scorers.detoxify import RELEASE_FILE, DetoxifyScorer, load_checkpoint
from gotd.evaluation.scorers.perspective import KEY, PerspectiveScorer
from gotd.storage.files import checksum
from gotd.storage.hub_models import FOLDER
from gotd.training.models import ModelSpec, build_model, load_tokenizer
from gotd.training.randomness import TrainingSeeds
from gotd.training.scorer import CHECKPOINT, ScorerSettings, train_scorer

SEEDS = TrainingSeeds.derive(1)
WORDS = [f"w{i}" for i in range(30)]
SETTINGS = {"learning_rate": 3e-3, "epochs": 6, "global_batch_size": 16, "max_length_tokens": 32}


@pytest.fixture(scope="module")
def comments():
    """Toxic is what names one of the last five words."""
    random = np.random.default_rng(0)
    texts, labels = [], []
    for i in range(160):
        words = list(random.choice(WORDS[:25], random.integers(3, 12)))
        if i % 2:
            words.insert(int(random.integers(len(words))), str(random.choice(WORDS[25:])))
        texts.append(" ".join(words))
        labels.append(i % 2)
    return texts, np.array(labels)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    spec = ModelSpec(hidden_size=32, heads=2, feed_forward_size=64, max_length_tokens=32)
    build_model(spec, WORDS, 1, folder)
    return folder


@pytest.fixture(scope="module")
def trained(bert, comments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    texts, labels = comments
    train_scorer(
        bert,
        texts,
        labels,
        ScorerSettings(**SETTINGS),
        SEEDS,
        folder / "work",
        folder,
    )
    return folder


def test_trained_scorer_tells_toxic_from_not(trained, comments):
    texts, labels = comments
    scores = DetoxifyScorer(str(trained / CHECKPOINT)).score(texts)
    assert ((scores >= 0.5) == labels).mean() > 0.9


def test_the_library_itself_gives_the_same_scores(trained, comments, monkeypatch):
    detoxify = pytest.importorskip("detoxify")
    texts = comments[0][:40]
    monkeypatch.chdir(trained)
    theirs = detoxify.Detoxify(checkpoint=CHECKPOINT).predict(texts)
    ours = DetoxifyScorer(str(trained / CHECKPOINT)).score(texts)
    assert list(theirs) == ["toxicity"]
    np.testing.assert_allclose(ours, theirs["toxicity"], atol=1e-6)


def test_training_is_reproducible(trained, bert, comments, tmp_path):
    texts, labels = comments
    train_scorer(
        bert,
        texts,
        labels,
        ScorerSettings(**SETTINGS),
        SEEDS,
        tmp_path / "work",
        tmp_path,
    )
    assert (tmp_path / CHECKPOINT).read_bytes() == (trained / CHECKPOINT).read_bytes()


def damaged(trained, change):
    found = torch.load(trained / CHECKPOINT, weights_only=True)
    change(found)
    path = trained / "damaged.ckpt"
    torch.save(found, path)
    return str(path)


def test_a_release_that_was_fetched_needs_no_network(bert, trained, tmp_path, monkeypatch):
    """The release and the model that it names are copied into one folder."""
    cache, commit = tmp_path / "cache", "a" * 40
    monkeypatch.setenv(FOLDER, str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    content = torch.load(trained / CHECKPOINT, weights_only=True)
    content["config"]["arch"]["args"]["model_type"] = "owner/backbone"
    release = cache / "checkpoints" / RELEASE_FILE
    release.parent.mkdir(parents=True)
    torch.save(content, release)
    monkeypatch.setattr("gotd.evaluation.scorers.detoxify.RELEASE_SHA256", checksum(release))
    model = cache / "models--owner--backbone"
    shutil.copytree(bert, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=f.name) for f in bert.iterdir()])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: listed)
    DetoxifyScorer().fetch()
    shutil.rmtree(cache)
    kept = tmp_path / "hub"
    assert (kept / "files" / RELEASE_FILE).is_file()
    assert (kept / "models" / "owner--backbone" / commit / "config.json").is_file()
    expected = DetoxifyScorer(str(trained / CHECKPOINT)).score(["w1 w2", "w29"])
    assert DetoxifyScorer().score(["w1 w2", "w29"]) == pytest.approx(expected)


def test_incomplete_or_unsafe_checkpoints_are_refused(trained, tmp_path):
    path = damaged(trained, lambda c: c["state_dict"].pop("classifier.weight"))
    with pytest.raises(ValueError, match=r"lacks 'classifier.weight'"):
        DetoxifyScorer(path).score(["w1"])
    path = damaged(trained, lambda c: c["state_dict"].update(more=torch.zeros(1)))
    with pytest.raises(ValueError, match="has 'more'"):
        DetoxifyScorer(path).score(["w1"])
    path = damaged(trained, lambda c: c.pop("config"))
    with pytest.raises(ValueError, match="no Detoxify checkpoint"):
        DetoxifyScorer(path).score(["w1"])
    path = damaged(trained, lambda c: c["state_dict"].update({"x.position_ids": torch.zeros(1)}))
    assert np.isfinite(DetoxifyScorer(path).score(["w1"])).all()  # older files carry this buffer
    code = tmp_path / "code.ckpt"
    code.write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(ValueError, match="would run its code"):
        DetoxifyScorer(str(code)).score(["w1"])
    with pytest.raises(FileNotFoundError):
        DetoxifyScorer(str(tmp_path / "none.ckpt")).score(["w1"])
    path = damaged(trained, lambda c: c["config"]["dataset"]["args"].update(classes=["threat"]))
    with pytest.raises(ValueError, match="no class 'toxicity'; it has threat"):
        DetoxifyScorer(path).score(["w1"])


def test_only_the_release_may_hold_more_than_plain_values(trained):
    """Its checksum was checked; another file with such values is refused."""
    path = damaged(trained, lambda c: c.update(made_on=PurePosixPath("machine")))
    with pytest.raises(ValueError, match="would run its code"):
        load_checkpoint(Path(path), trusted=False)
    network, _, classes = load_checkpoint(Path(path), trusted=True)
    assert "toxicity" in classes
    assert not network.training


@pytest.fixture(scope="module")
def classifier(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    config = BertConfig.from_pretrained(
        bert, num_labels=3, id2label={0: "neutral", 1: "toxic", 2: "threat"}
    )
    torch.manual_seed(3)
    network = BertForSequenceClassification(config)
    network.save_pretrained(folder)
    load_tokenizer(bert).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("cause", [OSError("unreachable"), RuntimeError("invalid hash value")])
def test_a_release_that_cannot_be_downloaded_is_one_line(tmp_path, monkeypatch, cause):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*_, **__):
        raise cause

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(FileNotFoundError, match=f"cannot be downloaded from .*{cause}") as error:
        DetoxifyScorer().score(["a text"])
    assert "\n" not in str(error.value)


def test_a_release_that_torch_has_loaded_is_not_downloaded_again(tmp_path, monkeypatch):
    """`torch.hub.load_state_dict_from_url`, which the library calls, names the file."""
    made: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda _, path, *a, **b: made.append(path)
    )
    monkeypatch.setattr(torch, "load", lambda *_, **__: {})
    torch.hub.load_state_dict_from_url(detoxify.RELEASE)
    Path(made[0]).touch()
    monkeypatch.setattr(detoxify, "checksum", lambda _: detoxify.RELEASE_SHA256)
    assert detoxify._fetch() == Path(made[0])
    assert len(made) == 1


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_any_classifier_scores_as_plain_transformers_do(classifier, comments, activation):
    texts = [*comments[0][:30], ""]
    scores = ClassifierScorer(str(classifier), "toxic", activation).score(texts)
    network = BertForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = load_tokenizer(classifier)
    for text, score in zip(texts, scores, strict=True):
        with torch.no_grad():
            logits = network(**tokenizer(text, return_tensors="pt")).logits[0]
        plain = logits.softmax(0) if activation == "softmax" else logits.sigmoid()
        assert score == pytest.approx(plain[1].item(), abs=1e-6)
    assert len(ClassifierScorer(str(classifier)).score([])) == 0


def test_a_classifier_is_known_by_its_bytes_and_must_be_trained(classifier, bert, tmp_path):
    scorer = ClassifierScorer(str(classifier))
    assert str(classifier) not in json.dumps(scorer.identity())
    assert scorer.identity() != ClassifierScorer(str(bert)).identity()
    with pytest.raises(ValueError, match="lacks 4 weights of its architecture"):
        ClassifierScorer(str(bert)).score(["w1"])
    with pytest.raises(ValueError, match="no class 'rude'"):
        ClassifierScorer(str(classifier), label="rude").score(["w1"])
    with pytest.raises(ValueError, match="activation"):
        ClassifierScorer(str(classifier), activation="relu")


@pytest.fixture
def service(monkeypatch):
    """A loopback service: busy once for every text, no to French, silent about silence."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["comment"]["text"]
            asked.append(text)
            status, said = 200, ""
            key = self.headers["X-Goog-Api-Key"]  # an address would show it in errors
            if key == "mistyped":
                status, said = 400, "API key not valid. Please pass a valid API key."
            elif key != "right" or "key" in self.path:
                status = 403
            elif "busy" in text and asked.count(text) == 1:
                status = 429
            elif text == "bonjour":
                status, said = 400, "TOXICITY does not support request languages: fr"
            elif text == "silence":
                status = 503
            value = {"summaryScore": {"value": len(text) / 100}}
            found = {"attributeScores": {"TOXICITY": value}}
            answer = json.dumps({"error": {"message": said}} if said else found).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(KEY, "right")
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_perspective_answers_are_kept_and_refusals_counted(service, tmp_path):
    address, asked = service
    scorer = PerspectiveScorer(str(tmp_path), requests_per_second=500, tries=2, address=address)
    scores = scorer.score(["hello", "busy day", "bonjour", " "])
    np.testing.assert_allclose(scores, [0.05, 0.08, np.nan, np.nan])
    before = len(asked)
    np.testing.assert_allclose(scorer.score(["hello", "busy day", "bonjour", " "]), scores)
    assert asked[before:] == []  # refused is an answer


def test_no_answer_from_perspective_is_no_failed_score(service, tmp_path):
    address, asked = service
    scorer = PerspectiveScorer(str(tmp_path), requests_per_second=500, tries=2, address=address)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no answer .*503.*are cached in .*run again"):
            scorer.score(["hello", "silence"])
    assert asked == ["hello", "silence", "silence", "silence", "silence"]


def test_workers_may_ask_perspective_for_the_same_texts(service, tmp_path):
    address, _ = service
    scorer = PerspectiveScorer(str(tmp_path), requests_per_second=500, address=address)
    texts = [f"text {i}" for i in range(30)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scorer.score, [texts] * 4))
    assert all(np.array_equal(scores, found[0]) for scores in found)
    assert not list(tmp_path.rglob("*.part"))


def test_perspective_needs_its_key(service, tmp_path, monkeypatch):
    address, _ = service
    scorer = PerspectiveScorer(str(tmp_path), requests_per_second=500, address=address)
    monkeypatch.setenv(KEY, "wrong")
    with pytest.raises(PermissionError, match="rejects the key"):
        scorer.score(["hello"])
    monkeypatch.setenv(KEY, "mistyped")
    with pytest.raises(PermissionError, match="rejects the key"):
        scorer.score(["hello"])
    assert not list(tmp_path.rglob("*.json"))  # the next key asks for it again
    monkeypatch.delenv(KEY)
    with pytest.raises(PermissionError, match=KEY):
        scorer.score(["hello"])


def test_perspective_keeps_its_rate(service, tmp_path):
    import time

    address, _ = service
    scorer = PerspectiveScorer(str(tmp_path), requests_per_second=20, address=address)
    began = time.perf_counter()
    scorer.score([f"text {i}" for i in range(6)])
    assert time.perf_counter() - began >= 6 / 20
