"""The zero-shot task of the generated benchmark: a text to be continued by its topic.

Shaped after AG News as the paper prompts it (App. E): the text, then one of four words. The text
names an entity in a neutral sentence and then again. The four words are verbs, one of each
category; the correct one has the category of the entity. Only documents state categories, with
the verb next to the entity, so a causal model that has read about the entity answers, and one
that has not guesses. Only the pool has documents about entities of the rare domain.
"""

from __future__ import annotations

import numpy as np

from gotd.data.microworld.grammar import CATEGORY_WORDS, line
from gotd.data.microworld.tasks import Scene, Task, Texts

TOPIC_WORDS = tuple(words[0] for words in CATEGORY_WORDS)
"""The choices, by label."""


def _topic(scene: Scene, classes: np.ndarray) -> Texts:
    """Write a neutral sentence about an entity of the category, then its mention."""
    voice = scene.voice
    concept = scene.concept(voice.facts.category == classes[:, None])
    noun_class = voice.noun_class(len(classes))
    stop = voice.word(".")
    return (line([*voice.neutral(concept, noun_class), stop, *voice.mention(concept, noun_class)]),)


ZERO_SHOT: dict[str, Task] = {"topic": Task(("text",), len(CATEGORY_WORDS), _topic)}
