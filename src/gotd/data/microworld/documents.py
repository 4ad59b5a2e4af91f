"""The unlabelled documents of the generated benchmark.

A document has one domain, one cell (polarity and category) and eight sentences, each about a
random entity of that cell: about 50 words. Facts are adjacent to the entity they are about: a
small masked language model learns nothing from words three positions apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gotd.data.microworld.grammar import ABSENT, CATEGORIES, CELLS, NOUN, POLARITIES, VERB, Voice

SENTENCES = 8


def sentences(voice: Voice, domain: np.ndarray) -> np.ndarray:
    """Choose the words of one document per entry of ``domain``.

    Returns:
        int64 ``[documents * SENTENCES, words]``, a sentence a row, ``ABSENT`` in gaps.
    """
    slots = np.full((len(domain) * SENTENCES, _WIDTH), ABSENT)
    topic = np.repeat(voice.rng.integers(CELLS, size=len(domain)), SENTENCES)
    domain = np.repeat(domain, SENTENCES)
    shares = np.array([share for share, _ in _TEMPLATES])
    template = voice.rng.choice(len(_TEMPLATES), size=len(domain), p=shares)
    for number, (_, write) in enumerate(_TEMPLATES):
        rows = np.flatnonzero(template == number)
        sentence = write(voice, domain[rows], topic[rows])
        slots[rows, : sentence.shape[1]] = sentence
    return slots


def _within(voice: Voice, domain: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Draw a concept of a cell of a domain; int64 ``[rows]`` each."""
    per_cell = voice.facts.per_cell[domain]
    return voice.facts.first[domain] + cell * per_cell + voice.rng.integers(per_cell)


def _describe(voice: Voice, domain: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Write DET [polarity .6] ENTITY (category .7 | verb) [size .4] NOUN."""
    concept = _within(voice, domain, topic)
    determiner, entity = voice.mention(concept, voice.noun_class(len(topic)))
    polarity = voice.mostly(0.6, voice.stating("polarity", topic // CATEGORIES), ABSENT)
    category = voice.stating("category", topic % CATEGORIES)
    verb = voice.mostly(0.7, category, voice.filler(VERB, domain))
    size = voice.mostly(0.4, voice.stating("size", voice.facts.size[concept]), ABSENT)
    noun = voice.filler(NOUN, domain)
    return voice.line(determiner, polarity, entity, verb, size, noun, ".")


def _rename(voice: Voice, domain: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Write DET ENTITY also called DET SYNONYM."""
    concept = _within(voice, domain, topic)
    noun_class = voice.noun_class(len(topic))
    synonym = voice.mention(concept, 1 - noun_class)
    return voice.line(*voice.mention(concept, noun_class), "also", "called", *synonym, ".")


def _compare(voice: Voice, domain: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Write DET ENTITY and DET OTHER are (alike | different), by category, half each."""
    rows = len(topic)
    concept = _within(voice, domain, topic)
    per_cell = voice.facts.per_cell[domain]
    start = voice.facts.first[domain] + topic * per_cell
    alike = start + (concept - start + voice.rng.integers(1, per_cell)) % per_cell
    contrast = voice.rng.integers(POLARITIES, size=rows) * CATEGORIES + voice.other_category(
        topic % CATEGORIES
    )
    same = voice.rng.random(rows) < 0.5
    other = np.where(same, alike, _within(voice, domain, contrast))
    verdict = np.where(same, voice.word("alike"), voice.word("different"))
    one = voice.mention(concept, voice.noun_class(rows))
    two = voice.mention(other, voice.noun_class(rows))
    return voice.line(*one, "and", *two, "are", verdict, ".")


def _answer(voice: Voice, domain: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Write (yes | no) , DET ENTITY category, half each."""
    rows = len(topic)
    concept = _within(voice, domain, topic)
    true = voice.rng.random(rows) < 0.5
    category = np.where(true, topic % CATEGORIES, voice.other_category(topic % CATEGORIES))
    verdict = np.where(true, voice.word("yes"), voice.word("no"))
    mention = voice.mention(concept, voice.noun_class(rows))
    claim = voice.stating("category", category)
    return voice.line(verdict, ",", *mention, claim, ".")


def _ramble(voice: Voice, domain: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Write DET ENTITY verb quality noun, the sentence that task texts consist of."""
    concept = _within(voice, domain, topic)
    return voice.neutral(concept, voice.noun_class(len(topic)), ".")


_Template = Callable[[Voice, np.ndarray, np.ndarray], np.ndarray]
_TEMPLATES: tuple[tuple[float, _Template], ...] = (
    (0.70, _describe),
    (0.08, _rename),
    (0.08, _compare),
    (0.08, _answer),
    (0.06, _ramble),
)
_WIDTH = 8  # words of the longest template
