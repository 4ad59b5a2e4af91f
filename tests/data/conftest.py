"""The truth about a generated world, which its texts must agree with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.microworld.world import Microworld


@pytest.fixture(scope="session")
def entities() -> Callable[[Microworld], pa.Table]:
    """Return a function that lists every entity word of a world with its attributes.

    ``word``, ``domain``, ``concept`` (equal for synonyms), ``polarity`` (1 good), ``category``
    (0 to 3), ``size`` (0 to 3), ``noun_class`` (0 or 1) and ``evaluation`` (whether evaluation
    rows, instead of training rows, name it).
    """

    def truth(world: Microworld) -> pa.Table:
        facts, names = world._facts(), np.array(world._domain_names, dtype=object)
        concept, noun_class = np.divmod(np.arange(facts.entity.size), facts.entity.shape[1])
        words = np.array(world._lexicon.words, dtype=object)[facts.entity.ravel()]
        return pa.table(
            {
                "word": pa.array(words, pa.string()),
                "domain": pa.array(names[facts.domain[concept]], pa.string()),
                "concept": concept,
                "polarity": facts.polarity[concept],
                "category": facts.category[concept],
                "size": facts.size[concept],
                "noun_class": noun_class,
                "evaluation": facts.evaluation[concept],
            }
        )

    return truth
