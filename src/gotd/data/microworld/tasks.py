"""The labelled tasks of the generated benchmark, in three suites.

Task texts mention entities only in neutral clauses, so a label can be predicted only from the
attributes of the entities, and those are stated in the documents alone. Wording, noun class and the
asked-for attribute are independent of the label, so a bag of words stays at chance on entities
that no training row mentions.

``GLUE`` is shaped like GLUE.

``DOMAIN`` has one text, a class and a home domain per task. It is named and shaped after tasks of
Gururangan et al. (2020): few or many classes, some of them rare, one test set of 65 rows. A class
is a set of attributes, known from documents alone, of the entities that the text names in neutral
clauses. If the home is a rare domain, the base model lacks what the task needs. If it is a common
one, the model lacks nothing, and pre-fine-tuning can only do harm.

``ZERO_SHOT`` is a text to be continued by its topic, shaped after AG News as the paper prompts it
(App. E): the text, then one of four words. The text names an entity in a neutral sentence and then
again. The four words are verbs, one of each category; the correct one has the category of the
entity. Only documents state categories, with the verb next to the entity. So a causal model that
has read about the entity answers, and one that has not guesses. Only the pool has documents about
entities of the rare domain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pyarrow as pa

from gotd.data.microworld.grammar import CATEGORIES, Facts, Voice, spell


@dataclass(frozen=True)
class Scene:
    """Concepts that the rows of one split are about."""

    voice: Voice
    domain: np.ndarray
    """int64 ``[rows]``: the domain of each row."""
    evaluation: bool
    """Whether rows draw on the evaluation half of the concepts or on the labelled half."""

    def concept(self, allowed: np.ndarray | bool = True) -> np.ndarray:
        """Draw one concept per row, uniformly among those in scope.

        Args:
            allowed: bool ``[rows, concepts]`` or ``True``: a further condition. Every row must
                leave at least one concept.

        Returns:
            int64 ``[rows]``.
        """
        facts = self.voice.facts
        scope = self.domain[:, None] == facts.domain
        scope &= (facts.evaluation == self.evaluation) & allowed
        return np.where(scope, self.voice.rng.random(scope.shape), -1.0).argmax(axis=1)

    def pair(self, related: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw two concepts per row that are related as the class of the row demands.

        Args:
            related: bool ``[classes, concepts, concepts]``, symmetric in the concepts.
            classes: int64 ``[rows]``.

        Returns:
            Two int64 ``[rows]``.
        """
        facts = self.voice.facts
        near = facts.domain[:, None] == facts.domain
        near &= facts.evaluation[:, None] == facts.evaluation
        has_partner = (related & near).any(axis=2)
        one = self.concept(has_partner[classes])
        return one, self.concept(related[classes, one])


Texts = tuple[np.ndarray, ...]
"""One int64 ``[rows, words]`` matrix of word indices per text column."""


@dataclass(frozen=True)
class Task:
    """Text columns, classes and the writer of the rows of a task."""

    columns: tuple[str, ...]
    classes: int
    write: Callable[[Scene, np.ndarray], Texts]
    """Write rows that have the given class, int64 ``[rows]``."""
    score_of_class: tuple[float, ...] | None = None
    """For a regression task the score that each class stands for."""
    shares: tuple[float, ...] | None = None
    """Share of each class within every domain; ``None``: equal shares."""
    home: str | None = None
    """Domain that most rows are about; ``None``: the mixture that all GLUE tasks share."""
    most_test_rows: int | None = None
    """Upper bound of the rows of the test split; ``None``: no bound."""

    def rows(self, scene: Scene) -> pa.Table:
        """Write one row per entry of ``scene.domain``, class shares kept within each domain.

        Returns:
            The text columns, then ``label`` (int64; float32 for a score) and ``idx`` (int32).
        """
        rows = len(scene.domain)
        classes = np.empty(rows, dtype=np.int64)
        # Counting on along the rows sorted by domain balances every domain and the whole split;
        # within a domain the order is random, so no stride through the rows picks one class.
        order = scene.voice.rng.permutation(rows)
        order = order[np.argsort(scene.domain[order], kind="stable")]
        classes[order] = self._assign(rows)
        texts = self.write(scene, classes)
        label = classes
        if self.score_of_class is not None:
            label = np.array(self.score_of_class, dtype=np.float32)[classes]
        columns = [spell(text, scene.voice.lexicon.words) for text in texts]
        columns += [pa.array(label), pa.array(np.arange(rows, dtype=np.int32))]
        return pa.table(columns, names=[*self.columns, "label", "idx"])

    def _assign(self, rows: int) -> np.ndarray:
        """Assign classes such that any stretch holds them by their shares; int64 ``[rows]``."""
        if self.shares is None:
            return np.arange(rows) % self.classes
        # Multiples of the golden ratio fill the unit interval as evenly as any sequence does.
        position = np.arange(1, rows + 1) * ((5**0.5 - 1) / 2) % 1.0
        return np.searchsorted(np.cumsum(self.shares)[:-1], position, side="right")


# GLUE -------------------------------------------------------------------------------------


def _two_neutral(scene: Scene, related: np.ndarray, classes: np.ndarray, end: str) -> Texts:
    """Write two neutral sentences, of different noun class because synonyms always are."""
    voice = scene.voice
    one, two = scene.pair(related, classes)
    noun_class = voice.noun_class(len(classes))
    return voice.neutral(one, noun_class, end), voice.neutral(two, 1 - noun_class, end)


def _cola(scene: Scene, classes: np.ndarray) -> Texts:
    """Write acceptable rows (1) if the category of the entity (0 or 1) may go with "today"."""
    concept = scene.concept((scene.voice.facts.category < 2) == classes[:, None])
    return (scene.voice.neutral(concept, scene.voice.noun_class(len(classes)), "today", "."),)


def _sst2(scene: Scene, classes: np.ndarray) -> Texts:
    """Write two clauses about different concepts of the polarity that is the label."""
    voice = scene.voice
    polarity = voice.facts.polarity == classes[:, None]
    one = scene.concept(polarity)
    two = scene.concept(polarity & (np.arange(polarity.shape[1]) != one[:, None]))
    first = voice.neutral(one, voice.noun_class(len(classes)), ",")
    second = voice.neutral(two, voice.noun_class(len(classes)), ".")
    return (np.concatenate([first, second], axis=1),)


def _mrpc(scene: Scene, classes: np.ndarray) -> Texts:
    """Write rows that are equivalent (1) if two different concepts are of the same category."""
    category = scene.voice.facts.category
    same = category[:, None] == category
    identical = np.eye(len(category), dtype=bool)
    return _two_neutral(scene, np.stack([~same, same & ~identical]), classes, ".")


def _qqp(scene: Scene, classes: np.ndarray) -> Texts:
    """Write rows that are duplicates (1) if the two entities are synonyms."""
    identical = np.eye(len(scene.voice.facts.cell), dtype=bool)
    return _two_neutral(scene, np.stack([~identical, identical]), classes, "?")


def _stsb(scene: Scene, classes: np.ndarray) -> Texts:
    """Write pairs that score 5/3 for each shared attribute: polarity, category and size."""
    facts = scene.voice.facts
    attributes = np.stack([facts.polarity, facts.category, facts.size])
    shared = (attributes[:, :, None] == attributes[:, None, :]).sum(axis=0)
    return _two_neutral(scene, shared == np.arange(4)[:, None, None], classes, ".")


def _asked_category(scene: Scene, concept: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Choose a verb of the concept's category (class 0) or of another (class 1)."""
    voice = scene.voice
    category = voice.facts.category[concept]
    asked = np.where(classes == 0, category, voice.other_category(category))
    return voice.stating("category", asked)


def _rte(scene: Scene, classes: np.ndarray) -> Texts:
    """Write rows that are entailment (0) if the claimed category is that of the entity."""
    concept = scene.concept()
    noun_class = scene.voice.noun_class(len(classes))
    premise = scene.voice.neutral(concept, noun_class, ".")
    verb = _asked_category(scene, concept, classes)
    return premise, scene.voice.line(*scene.voice.mention(concept, noun_class), verb, ".")


def _qnli(scene: Scene, classes: np.ndarray) -> Texts:
    """Write rows that are entailment (0) if the entity has the category asked for."""
    concept = scene.concept()
    verb = _asked_category(scene, concept, classes)
    sentence = scene.voice.neutral(concept, scene.voice.noun_class(len(classes)), ".")
    return scene.voice.line("which", verb, "?"), sentence


def _mnli(scene: Scene, classes: np.ndarray) -> Texts:
    """Write entailment (0) or contradiction (2) by polarity; another entity is neutral (1)."""
    voice, facts = scene.voice, scene.voice.facts
    concept = scene.concept()
    another = scene.concept(np.arange(len(facts.cell)) != concept[:, None])
    # The other entity keeps the noun class: determiners must not reveal the neutral rows.
    noun_class = voice.noun_class(len(classes))
    determiner, entity = voice.mention(np.where(classes == 1, another, concept), noun_class)
    true, any_polarity = facts.polarity[concept], voice.rng.integers(2, size=len(classes))
    polarity = np.choose(classes, [true, any_polarity, 1 - true])
    adjective = voice.stating("polarity", polarity)
    claim = voice.line(determiner, adjective, entity, ".")
    return voice.neutral(concept, noun_class, "."), claim


GLUE: dict[str, Task] = {
    "cola": Task(("sentence",), 2, _cola),
    "sst2": Task(("sentence",), 2, _sst2),
    "mrpc": Task(("sentence1", "sentence2"), 2, _mrpc),
    "stsb": Task(("sentence1", "sentence2"), 4, _stsb, (0.0, 5 / 3, 10 / 3, 5.0)),
    "qqp": Task(("question1", "question2"), 2, _qqp),
    "mnli": Task(("premise", "hypothesis"), 3, _mnli),
    "qnli": Task(("question", "sentence"), 2, _qnli),
    "rte": Task(("sentence1", "sentence2"), 2, _rte),
}


# DOMAIN -----------------------------------------------------------------------------------

Label = Callable[[Facts], np.ndarray]
"""Returns the class of every concept, int64 ``[concepts]``."""

_category, _polarity = attrgetter("category"), attrgetter("polarity")


def _five(facts: Facts) -> np.ndarray:
    """Return the category, the last one split by polarity."""
    return np.where(facts.category < 3, facts.category, 3 + facts.polarity)


def _six(facts: Facts) -> np.ndarray:
    """Return the category, the last two split by polarity."""
    split = 2 * facts.category - 2 + facts.polarity
    return np.where(facts.category < 2, facts.category, split)


def _about(label: Label, ends: tuple[str, ...]) -> Callable[[Scene, np.ndarray], Texts]:
    """Write texts of one neutral clause per ending, about different concepts of the class."""

    def write(scene: Scene, classes: np.ndarray) -> Texts:
        of_class = label(scene.voice.facts) == classes[:, None]
        clauses = []
        for end in ends:
            concept = scene.concept(of_class)
            noun_class = scene.voice.noun_class(len(classes))
            clauses.append(scene.voice.neutral(concept, noun_class, end))
            of_class = of_class & (np.arange(of_class.shape[1]) != concept[:, None])
        return (np.concatenate(clauses, axis=1),)

    return write


ONE, TWO = (".",), (",", ".")

DOMAIN: dict[str, Task] = {
    "rct": Task(
        ("text",), 5, _about(_five, ONE), shares=(0.33, 0.33, 0.15, 0.11, 0.08), home="rare_0"
    ),
    "acl_arc": Task(
        ("text",), 6, _about(_six, ONE), shares=(0.51, 0.18, 0.18, 0.05, 0.04, 0.04), home="rare_1"
    ),
    "hyperpartisan": Task(
        ("text",), 2, _about(_polarity, ONE), shares=(0.63, 0.37), home="rare_0", most_test_rows=65
    ),
    "agnews": Task(("text",), 4, _about(_category, ONE), home="common_1"),
    "imdb": Task(("text",), 2, _about(_polarity, TWO), home="common_2"),
}


# ZERO_SHOT --------------------------------------------------------------------------------


def _topic(scene: Scene, classes: np.ndarray) -> Texts:
    """Write a neutral sentence about an entity of the category, then its mention."""
    voice = scene.voice
    concept = scene.concept(voice.facts.category == classes[:, None])
    noun_class = voice.noun_class(len(classes))
    sentence = voice.neutral(concept, noun_class, ".")
    mention = voice.line(*voice.mention(concept, noun_class))
    return (np.concatenate([sentence, mention], axis=1),)


ZERO_SHOT: dict[str, Task] = {"topic": Task(("text",), CATEGORIES, _topic)}
