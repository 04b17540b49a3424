"""What a critic looked through may not judge."""

import pytest

from latentshift.errors import RequestError
from latentshift.metrics.independence import may_not_judge, refuse_partial


def test_the_critics_network_is_refused_and_others_are_not():
    record = {"honest": {"may_not_judge": ["squeezenet10"]}}
    for name in ("squeezenet112", "squeezenet227", "SqueezeNet10"):
        with pytest.raises(RequestError, match="may not judge"):
            refuse_partial(name, may_not_judge(record))
    for name in ("resnet20", "fashion32-judge", "pixels32"):
        refuse_partial(name, may_not_judge(record))


def test_runs_without_an_honest_critic_exclude_nothing():
    assert may_not_judge({}) == ()
    assert may_not_judge({"honest": None}) == ()
    refuse_partial("squeezenet112", ())
