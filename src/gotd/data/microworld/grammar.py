"""The language and the facts of the generated benchmark.

Three classes: a ``Lexicon`` (the words, the same in every world), ``Facts`` (what is true in one
world: which entity word stands for which attributes) and a ``Voice`` (every random choice of
wording). Texts are built as matrices of word indices, one row per text, and turned into strings
at the very end, so a world of 40,000 documents takes about a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

_WORDS = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text("utf-8"))
SPECIALS: Sequence[str] = _WORDS["specials"]
ATTRIBUTES: Mapping[str, Sequence[Sequence[str]]] = _WORDS["attributes"]
"""The words that state each value of an attribute; those of the noun class are determiners."""

POLARITIES, CATEGORIES, SIZES, NOUN_CLASSES = 2, 4, 4, 2
CELLS = POLARITIES * CATEGORIES
FILLERS = 16  # words of each kind per domain
NOUN, VERB, QUALITY = range(3)  # the kinds
ABSENT = -1  # an empty slot in a matrix of word indices

_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def invented(number: int, syllables: int) -> str:
    """Return the word of a number; distinct numbers below ``70**syllables`` give distinct words."""
    base = len(_SYLLABLES)
    # The step shares no factor with 70 = 2 * 5 * 7, so this is a bijection that looks unordered.
    code = (number * 104_729 + 2_357) % base**syllables
    return "".join(_SYLLABLES[code // base**power % base] for power in range(syllables))


@dataclass(frozen=True)
class Lexicon:
    """Words of the language; they depend on the number of domains, never on the seed.

    Entities and fillers belong to one domain, all other words are shared. An invented entity
    word does not depend on its attributes: only ``Facts`` has those.
    """

    entity_counts: tuple[int, ...]
    """Entities per domain."""

    @cached_property
    def words(self) -> list[str]:
        """Return the vocabulary, special tokens first; the position of a word is its index."""
        words = [*SPECIALS, *_WORDS["function_words"]]
        for groups in ATTRIBUTES.values():
            words += [word for group in groups for word in group]
        entity = 0
        for domain, count in enumerate(self.entity_counts):
            words += [invented(entity + number, 3) for number in range(count)]
            entity += count
            fillers = range(domain * FILLERS, (domain + 1) * FILLERS)
            # The last letter marks the part of speech and keeps the three lists apart.
            words += [invented(number, 2) + ending for ending in "tsl" for number in fillers]
        return words

    @cached_property
    def index(self) -> dict[str, int]:
        """Return the index of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def stating(self, attribute: str) -> np.ndarray:
        """Return the indices of the words of an attribute, int64 ``[values, words]``."""
        return np.array([[self.index[word] for word in words] for words in ATTRIBUTES[attribute]])

    @cached_property
    def starts(self) -> np.ndarray:
        """Return the index of the first entity word of each domain, int64 ``[domains]``."""
        sizes = np.array(self.entity_counts) + 3 * FILLERS
        return len(self.words) - sizes[::-1].cumsum()[::-1]

    def entities(self, domain: int) -> np.ndarray:
        """Return the indices of the entity words of a domain, int64 ``[entities]``."""
        return self.starts[domain] + np.arange(self.entity_counts[domain])

    @cached_property
    def fillers(self) -> np.ndarray:
        """Return the indices of nouns, verbs and qualities, int64 ``[3, domains, 16]``."""
        block = np.arange(3 * FILLERS).reshape(3, 1, FILLERS)
        return block + (self.starts + self.entity_counts)[None, :, None]


@dataclass(frozen=True)
class Facts:
    """Truth of one world, one row per concept.

    A concept is a pair of synonyms, one entity word of each noun class, so a determiner depends
    on no other attribute. Concepts are ordered by domain, then by cell
    (``polarity * 4 + category``); every cell of a domain has equally many. Within a cell sizes
    repeat only once all four are used up, which leaves every number of shared attributes (0 to 3)
    among the concepts of either half.
    """

    domain: np.ndarray
    """int64 ``[concepts]``."""
    cell: np.ndarray
    """int64 ``[concepts]``."""
    size: np.ndarray
    """int64 ``[concepts]``."""
    evaluation: np.ndarray
    """bool ``[concepts]``: in the half that only evaluation rows mention; balanced over
    polarities and over categories in every domain."""
    entity: np.ndarray
    """int64 ``[concepts, 2]``: word index of the synonym of each noun class."""

    @staticmethod
    def draw(lexicon: Lexicon, generators: Sequence[np.random.Generator]) -> Facts:
        """Assign the entity words of each domain to its concepts, one generator per domain."""
        parts = []
        for domain, rng in enumerate(generators):
            entities = rng.permutation(lexicon.entities(domain)).reshape(-1, NOUN_CLASSES)
            per_cell = len(entities) // CELLS
            rounds = -(-per_cell // SIZES)
            sizes = np.tile(np.arange(SIZES), (rounds, CELLS, 1))
            size = np.concatenate(rng.permuted(sizes, axis=2), axis=1)[:, :per_cell]
            cell, number = np.divmod(np.arange(len(entities)), per_cell)
            # With an odd number per cell the spare concept alternates between the halves, like the
            # colours of a chessboard, so that polarities and categories stay balanced.
            spare = (cell // CATEGORIES + cell % CATEGORIES) % 2
            evaluation = number >= (per_cell + spare) // 2
            parts.append((np.full(len(cell), domain), cell, size.ravel(), evaluation, entities))
        return Facts(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def polarity(self) -> np.ndarray:
        """Return 0 for bad, 1 for good; int64 ``[concepts]``."""
        return self.cell // CATEGORIES

    @property
    def category(self) -> np.ndarray:
        """Return 0 to 3; int64 ``[concepts]``."""
        return self.cell % CATEGORIES

    @cached_property
    def first(self) -> np.ndarray:
        """Return the first concept of each domain, int64 ``[domains]``."""
        return np.searchsorted(self.domain, np.arange(self.domain[-1] + 1))

    @cached_property
    def per_cell(self) -> np.ndarray:
        """Return the number of concepts in each cell of a domain, int64 ``[domains]``."""
        return np.bincount(self.domain) // CELLS


@dataclass(frozen=True)
class Voice:
    """Random choices of words; nowhere else is wording random.

    Arguments and results are int64 ``[rows]`` unless stated otherwise.
    """

    lexicon: Lexicon
    facts: Facts
    rng: np.random.Generator

    def word(self, word: str) -> int:
        """Return the index of a function word."""
        return self.lexicon.index[word]

    def one_of(self, options: np.ndarray) -> np.ndarray:
        """Choose one entry in each row of ``[rows, choices]``, uniformly."""
        rows, choices = options.shape
        return options[np.arange(rows), self.rng.integers(choices, size=rows)]

    def mostly(self, share: float, words: np.ndarray, otherwise: np.ndarray | int) -> np.ndarray:
        """Choose each word with probability ``share``, else the other."""
        return np.where(self.rng.random(len(words)) < share, words, otherwise)

    def noun_class(self, rows: int) -> np.ndarray:
        """Draw noun classes, 0 or 1."""
        return self.rng.integers(NOUN_CLASSES, size=rows)

    def stating(self, attribute: str, value: np.ndarray) -> np.ndarray:
        """Choose a word that states the value of an attribute, one of `ATTRIBUTES`."""
        return self.one_of(self.lexicon.stating(attribute)[value])

    def mention(self, concept: np.ndarray, noun_class: np.ndarray) -> list[np.ndarray]:
        """Return determiner and entity of a concept: its synonym of a noun class."""
        return [self.stating("noun_class", noun_class), self.facts.entity[concept, noun_class]]

    def other_category(self, category: np.ndarray) -> np.ndarray:
        """Draw one of the three other categories."""
        return (category + self.rng.integers(1, CATEGORIES, size=len(category))) % CATEGORIES

    def filler(self, kind: int, domain: np.ndarray) -> np.ndarray:
        """Choose a ``NOUN``, ``VERB`` or ``QUALITY`` of the domain."""
        return self.one_of(self.lexicon.fillers[kind][domain])

    def neutral(self, concept: np.ndarray, noun_class: np.ndarray, *ending: str) -> np.ndarray:
        """Write a clause that depends on the domain and no attribute: five words, and the ending.

        Returns:
            int64 ``[rows, words]``.
        """
        domain = self.facts.domain[concept]
        mention = self.mention(concept, noun_class)
        fillers = [self.filler(kind, domain) for kind in (VERB, QUALITY, NOUN)]
        return self.line(*mention, *fillers, *ending)

    def line(self, *parts: np.ndarray | int | str) -> np.ndarray:
        """Join words to int64 ``[rows, parts]``: indices, or a function word for all rows."""
        words = [self.word(part) if isinstance(part, str) else part for part in parts]
        return np.stack(np.broadcast_arrays(*words), axis=1)


def spell(slots: np.ndarray, vocabulary: Sequence[str]) -> pa.StringArray:
    """Convert int64 ``[rows, slots]`` word indices to ``[rows]`` texts, without ``ABSENT``."""
    filled = slots != ABSENT
    words = np.array(vocabulary, dtype=object)[slots[filled]].tolist()
    ends = filled.sum(axis=1).cumsum().tolist()
    starts = [0, *ends[:-1]]
    texts = [" ".join(words[start:end]) for start, end in zip(starts, ends, strict=True)]
    return pa.array(texts, pa.string())
