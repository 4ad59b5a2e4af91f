"""The generated benchmark: determinism, labels that only facts explain, honest splits."""

import itertools
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from gotd.data.base import read_all
from gotd.data.microworld.grammar import ATTRIBUTES, SPECIALS, invented
from gotd.data.microworld.tasks import DOMAIN
from gotd.data.microworld.world import Microworld

TASKS = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]
CLASSIFICATION = [task for task in TASKS if task != "stsb"]
COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
    "rte": ["sentence1", "sentence2"],
}


def group(groups):
    return {word: number for number, words in enumerate(groups) for word in words}


POLARITY, CATEGORY, SIZE, NOUN_CLASS = map(group, ATTRIBUTES.values())


@pytest.fixture(scope="module")
def world():
    return Microworld(seed=3)


@pytest.fixture(scope="module")
def truth(world, entities):
    return {row["word"]: row for row in entities(world).to_pylist()}


def small(**fields):
    return Microworld(**{"pretraining_documents": 200, "rare_share": 0.1} | fields)


def only(table, column, value):
    return table.filter(pa.array([entry == value for entry in table[column].to_pylist()]))


def mentioned(text, truth):
    return [truth[word] for word in text.split() if word in truth]


def texts(table, task):
    return list(zip(*(table[column].to_pylist() for column in COLUMNS[task]), strict=True))


def oracle(task, row, truth) -> float:
    """Label a row from its text and the attribute table alone."""
    entities = mentioned(" ".join(row), truth)
    one, last = entities[0], entities[-1]
    verbs = [CATEGORY[word] for word in " ".join(row).split() if word in CATEGORY]
    match task:
        case "cola":
            return int(one["category"] < 2)
        case "sst2":
            assert one["polarity"] == last["polarity"]
            return one["polarity"]
        case "mrpc":
            return int(one["category"] == last["category"])
        case "qqp":
            return int(one["concept"] == last["concept"])
        case "stsb":
            return 5 / 3 * sum(one[key] == last[key] for key in ("polarity", "category", "size"))
        case "mnli":
            said = next(POLARITY[word] for word in row[1].split() if word in POLARITY)
            if one["concept"] != last["concept"]:
                return 1
            return 0 if said == one["polarity"] else 2
    assert task in ("qnli", "rte")
    return int(verbs != [one["category"]])


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_that_knows_the_facts_is_always_right(world, truth, task):
    for split in world.splits(task):
        table = world.split(task, split)
        labels = [oracle(task, row, truth) for row in texts(table, task)]
        np.testing.assert_allclose(table["label"].to_numpy(), labels, rtol=1e-6)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_a_bag_of_words_is_at_chance_on_evaluation_concepts(task):
    scores = []
    for seed in range(3):
        world = Microworld(seed=seed)
        train, validation = world.split(task, "train"), world.split(task, "validation")
        bags = CountVectorizer(token_pattern=r"\S+")

        def sided(table):
            return [
                " ".join(f"{side}:{word}" for side, text in enumerate(row) for word in text.split())
                for row in texts(table, task)
            ]

        model = LogisticRegression(max_iter=1000)
        model.fit(bags.fit_transform(sided(train)), train["label"].to_numpy())
        scores.append(model.score(bags.transform(sided(validation)), validation["label"]))
    chance = 1 / 3 if task == "mnli" else 1 / 2
    # Three standard errors of the mean over 3,000 rows.
    assert abs(np.mean(scores) - chance) < 3 * np.sqrt(chance * (1 - chance) / 3000)


def test_stsb_scores_are_unrelated_to_a_bag_of_words():
    world = Microworld(seed=1, labels=2000)
    train, validation = world.split("stsb", "train"), world.split("stsb", "validation")
    bags = CountVectorizer(token_pattern=r"\S+")
    joined = [[" ".join(row) for row in texts(table, "stsb")] for table in (train, validation)]
    classes = np.round(train["label"].to_numpy() * 3 / 5).astype(int)
    model = LogisticRegression(max_iter=1000).fit(bags.fit_transform(joined[0]), classes)
    score = model.predict_proba(bags.transform(joined[1])) @ np.arange(4)
    assert abs(np.corrcoef(score, validation["label"].to_numpy())[0, 1]) < 0.1


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_entities_are_in_no_training_row(world, truth, task):
    for split in world.splits(task):
        rows = world.split(task, split)
        for row in texts(rows, task):
            halves = {entity["evaluation"] for entity in mentioned(" ".join(row), truth)}
            assert halves == {split != "train"}


@pytest.mark.parametrize("task", TASKS)
def test_splits_look_like_glue(world, task):
    assert world.splits(task)[:2] == ["train", "validation"]
    for split in world.splits(task):
        table = world.split(task, split)
        score = pa.float32() if task == "stsb" else pa.int64()
        assert table.schema.names == [*COLUMNS[task], "label", "idx", "domain"]
        assert table.schema.field("label").type == score
        assert table.schema.field("idx").type == pa.int32()
        assert table.num_rows == (500 if split == "train" else 1000)


@pytest.mark.parametrize("task", TASKS)
def test_classes_and_target_domains_are_balanced(task):
    world = Microworld(seed=5, labels=241, evaluation_rows=123, rare_domains=2)
    for split in ("train", "validation"):
        table = world.split(task, split)
        labels, domains = table["label"].to_pylist(), table["domain"].to_pylist()
        for counts in (
            Counter(labels),
            *(
                Counter(
                    label for label, name in zip(labels, domains, strict=True) if name == domain
                )
                for domain in set(domains)
            ),
        ):
            assert max(counts.values()) - min(counts.values()) <= 1
        halves = Counter(domains)
        assert set(halves) == {"common_0", "rare_0", "rare_1"}
        assert abs(halves["common_0"] - halves["rare_0"] - halves["rare_1"]) <= 1
        assert abs(halves["rare_0"] - halves["rare_1"]) <= 1


def test_no_stride_through_the_rows_of_a_domain_picks_a_class(world):
    table = only(world.split("sst2", "validation"), "domain", "rare_0")
    assert 0.4 < table["label"].to_numpy()[::2].mean() < 0.6


def test_mismatched_rows_come_from_outside_the_target(world):
    matched = world.split("mnli", "validation_matched")
    assert matched.equals(world.split("mnli", "validation"))
    mismatched = world.split("mnli", "validation_mismatched")
    assert set(mismatched["domain"].to_pylist()) == {"common_1", "common_2", "common_3"}


def test_the_same_seed_gives_the_same_world_and_another_seed_another(entities):
    one, same, other = (small(seed=seed, candidate_documents=400) for seed in (1, 1, 2))
    assert read_all(one.pretraining()).equals(read_all(same.pretraining()))
    assert read_all(one.candidates()).equals(read_all(same.candidates()))
    assert one.split("rte", "train").equals(same.split("rte", "train"))
    assert entities(one).equals(entities(same))
    assert one.vocabulary() == other.vocabulary()
    assert read_all(one.pretraining())["text"] != read_all(other.pretraining())["text"]
    assert not entities(one).equals(entities(other))


def test_streams_do_not_disturb_one_another():
    one = small(candidate_documents=300)
    more = small(candidate_documents=500, labels=50)
    assert read_all(one.pretraining()).equals(read_all(more.pretraining()))
    assert one.split("cola", "validation").equals(more.split("cola", "validation"))
    fewer = small(candidate_documents=300, pretraining_documents=100)
    assert read_all(one.candidates()).equals(read_all(fewer.candidates()))
    assert one.split("cola", "train").equals(fewer.split("cola", "train"))


def test_streams_of_one_size_are_different_draws():
    world = Microworld(pretraining_documents=300, candidate_documents=300, rare_share=0.1)
    documents, candidates = (
        read_all(world.pretraining())["text"],
        read_all(world.candidates())["text"],
    )
    assert set(documents.to_pylist()).isdisjoint(candidates.to_pylist())
    train, validation = (
        Microworld(labels=300, evaluation_rows=300).split("sst2", split)
        for split in ("train", "validation")
    )
    assert train["domain"] != validation["domain"]


def test_documents_have_exact_shares_unique_ids_and_no_text_in_common(world):
    documents, candidates = read_all(world.pretraining()), read_all(world.candidates())
    assert Counter(candidates["domain"].to_pylist())["rare_0"] == 450
    assert Counter(documents["domain"].to_pylist())["rare_0"] == 150
    assert candidates.schema.names == ["id", "text", "domain"]
    assert candidates["id"][123].as_py() == "microworld-3/candidates/000123"
    ids = documents["id"].to_pylist() + candidates["id"].to_pylist()
    assert len(set(ids)) == 40_000
    assert set(documents["text"].to_pylist()).isdisjoint(candidates["text"].to_pylist())
    assert len(candidates["text"].unique()) == 30_000
    halves = np.array(candidates["domain"].to_pylist()[:15_000]) == "rare_0"
    assert 150 < halves.sum() < 300  # shuffled, not sorted


def test_documents_tell_true_facts_about_one_domain_and_topic(world, truth):
    seen = Counter()
    documents = read_all(world.pretraining()).slice(0, 3000)
    for text, domain in zip(*(documents[c].to_pylist() for c in ("text", "domain")), strict=True):
        sentences = text.removesuffix(" .").split(" . ")
        assert len(sentences) == 8
        for sentence in sentences:
            words, entities = sentence.split(), mentioned(sentence, truth)
            assert {entity["domain"] for entity in entities} == {domain}
            for determiner, word in itertools.pairwise(words):
                if determiner in NOUN_CLASS and word in truth:
                    assert NOUN_CLASS[determiner] == truth[word]["noun_class"]
            one, last = entities[0], entities[-1]
            same = one["category"] == last["category"]
            if "called" in words:
                assert one["concept"] == last["concept"]
                assert one["word"] != last["word"]
                seen["called"] += 1
            elif "alike" in words or "different" in words:
                assert same == ("alike" in words)
                assert one["word"] != last["word"]
                seen[words[-1]] += 1
            elif words[0] in ("yes", "no"):
                assert (CATEGORY[words[-1]] == one["category"]) == (words[0] == "yes")
                seen[words[0]] += 1
            else:
                for key, words_of in (
                    ("polarity", POLARITY),
                    ("category", CATEGORY),
                    ("size", SIZE),
                ):
                    said = {words_of[word] for word in words if word in words_of}
                    assert said <= {one[key]}
                    seen[key] += len(said)
    sentences = 3000 * 8
    shares = {"called": 0.08, "alike": 0.04, "different": 0.04, "yes": 0.04, "no": 0.04}
    shares |= {"polarity": 0.42, "category": 0.49, "size": 0.28}
    for key, share in shares.items():
        assert seen[key] / sentences == pytest.approx(share, rel=0.1), key


def test_every_domain_is_balanced_in_every_attribute(world, entities):
    for domain in ("common_0", "common_3", "rare_0"):
        words = only(entities(world), "domain", domain)
        count = 96 if domain == "rare_0" else 48
        assert words.num_rows == count
        for half in (True, False):
            rows = only(words, "evaluation", half)
            for key, levels in (("polarity", 2), ("category", 4), ("noun_class", 2)):
                counts = Counter(rows[key].to_pylist())
                assert set(counts.values()) == {count // 2 // levels}
        assert set(Counter(words["concept"].to_pylist()).values()) == {2}


def test_vocabulary_covers_every_text_without_a_repeated_word(world):
    words = world.vocabulary()
    assert words[:5] == list(SPECIALS)
    assert len(set(words)) == len(words) == 582
    used = set()
    for document in read_all(world.pretraining())["text"].to_pylist():
        used |= set(document.split(" "))
    for task in TASKS:
        for row in texts(world.split(task, "validation"), task):
            used |= set(" ".join(row).split(" "))
    assert used <= set(words)
    assert set(words) - used <= set(SPECIALS)
    assert all(re.fullmatch(r"[a-z]+|[.,?]", word) for word in words[5:])


def test_identity_names_every_field_and_the_version(world):
    identity = world.identity()
    assert identity["name"] == "microworld"
    assert identity["version"] == Microworld.version
    assert identity["seed"] == 3
    others = [
        Microworld(seed=3, labels=40),
        Microworld(seed=3, rare_share=0.02),
        Microworld(seed=3, common_domains=3),
    ]
    assert all(other.identity() != identity for other in others)


def test_rare_domains_share_the_rare_part_equally():
    world = Microworld(candidate_documents=1000, rare_share=0.1, rare_domains=2, common_domains=2)
    assert world.under_covered == ["rare_0", "rare_1"]
    counts = Counter(read_all(world.candidates())["domain"].to_pylist())
    assert counts == {"common_0": 450, "common_1": 450, "rare_0": 50, "rare_1": 50}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rare_share": 0.0}, "rare_share must lie between 0 and 1"),
        ({"rare_share": 1.0}, "rare_share must lie between 0 and 1"),
        ({"candidate_documents": 20}, "hold no document of rare_0"),
        ({"candidate_documents": 20, "rare_share": 0.95}, "hold no document of common_1"),
        ({"common_domains": 1}, "common_domains must be an integer of at least 2"),
        ({"rare_domains": 0}, "rare_domains must be an integer of at least 1"),
        ({"labels": 4}, "labels must be an integer of at least 8"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_an_impossible_world_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Microworld(**fields)


def test_unknown_tasks_and_splits_list_the_valid_ones(world):
    with pytest.raises(
        FileNotFoundError, match="no task 'wnli' in this world; choose from agnews, cola,"
    ):
        world.split("wnli", "train")
    with pytest.raises(FileNotFoundError, match="no task 'acl_arc' .* or raise rare_domains"):
        world.split("acl_arc", "train")  # its home is a second rare domain
    with pytest.raises(FileNotFoundError, match="no split 'test'; choose from train, validation"):
        world.split("sst2", "test")
    with pytest.raises(FileNotFoundError, match="no split 'validation_matched'"):
        world.split("sst2", "validation_matched")


# The domain suite ---------------------------------------------------------------------


def domain_world(seed=3):
    return Microworld(seed=seed, rare_domains=2, rare_share=0.03, candidate_documents=100)


def expected_class(task, entities) -> int:
    """Label a row from its entities and the attribute table alone."""
    (polarity,) = {entity["polarity"] for entity in entities}
    category = entities[0]["category"]
    return {
        "rct": category if category < 3 else 3 + polarity,
        "acl_arc": category if category < 2 else 2 * category - 2 + polarity,
        "agnews": category,
    }.get(task, polarity)


@pytest.mark.parametrize("task", DOMAIN)
def test_domain_labels_follow_from_the_facts_of_the_named_entities(task, entities):
    world = domain_world()
    truth = {row["word"]: row for row in entities(world).to_pylist()}
    for split in ("train", "validation", "test"):
        for row in world.split(task, split).to_pylist():
            entities = mentioned(row["text"], truth)
            assert row["label"] == expected_class(task, entities)
            assert {entity["domain"] for entity in entities} == {row["domain"]}
            assert {entity["evaluation"] for entity in entities} == {split != "train"}
            assert len({entity["concept"] for entity in entities}) == len(entities)


@pytest.mark.parametrize("task", DOMAIN)
def test_domain_tasks_have_their_home_their_class_shares_and_their_sizes(task):
    world = domain_world()
    sizes = {split: world.split(task, split).num_rows for split in world.splits(task)}
    tested = 65 if task == "hyperpartisan" else 1000
    assert sizes == {"train": 500, "validation": 200, "test": tested}
    table = world.split(task, "train")
    assert Counter(table["domain"].to_pylist()) == {DOMAIN[task].home: 375, "common_0": 125}
    for domain in (DOMAIN[task].home, "common_0"):
        labels = np.array(only(table, "domain", domain)["label"].to_pylist())
        found = np.bincount(labels, minlength=DOMAIN[task].classes) / len(labels)
        shares = DOMAIN[task].shares or [1 / DOMAIN[task].classes] * DOMAIN[task].classes
        np.testing.assert_allclose(found, shares, atol=0.03)


def test_a_world_without_a_home_has_no_such_task():
    assert "rct" in Microworld().tasks()
    assert "acl_arc" not in Microworld().tasks()
    assert "acl_arc" in domain_world().tasks()


def test_invented_words_are_distinct_and_stay_what_they_are():
    """What is stored under the key of a world has these words."""
    assert len({invented(number, 2) for number in range(70**2)}) == 70**2
    assert [invented(number, 3) for number in range(3)] == ["rimoba", "tetuke", "zagapo"]
