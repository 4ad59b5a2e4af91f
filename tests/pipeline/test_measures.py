"""An evaluation of an outside package states its own steps."""

import pytest

from gotd.pipeline.steps.measures import measured


def test_an_outside_evaluation_states_its_steps():
    class Probe:
        def steps(self, *arguments):
            return {"probe": arguments}

    given = ("model", "rows", "task", "tuning", "source", {"generation": 1})
    assert measured(Probe(), *given) == {"probe": given}


def test_an_evaluation_without_steps_is_named():
    class Nothing:
        pass

    with pytest.raises(ValueError, match="the evaluation Nothing states no steps"):
        measured(Nothing(), *[None] * 6)
