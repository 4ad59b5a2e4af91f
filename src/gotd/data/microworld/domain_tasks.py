"""The domain suite of the generated benchmark: one text, a class, a home domain per task.

Named and shaped after tasks of Gururangan et al. (2020): few or many classes, some of them
rare, one test set of 65 rows. A class is a set of attributes, known from documents alone, of the
entities that the text names in neutral clauses. If the home is a rare domain, the base model
lacks what the task needs. If it is a common one, the model lacks nothing, and pre-fine-tuning can
only do harm.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import numpy as np

from gotd.data.microworld.grammar import Facts
from gotd.data.microworld.tasks import Scene, Task, Texts, neutral

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
            clauses.append(neutral(scene, concept, scene.voice.noun_class(len(classes)), end))
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
