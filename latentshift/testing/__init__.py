"""For tests of your own: pairs with closed forms, and contract suites whose failures say what to do.

from latentshift.testing import check_strategy, linear_pair
def test_mine():
    check_strategy(MyStrategy(steps=3))
"""

from .contracts import check_critic, check_pair, check_space, check_strategy
from .oracles import CountedPair, counted, linear_pair, quadratic_pair

__all__ = [
    "CountedPair",
    "check_critic",
    "check_pair",
    "check_space",
    "check_strategy",
    "counted",
    "linear_pair",
    "quadratic_pair",
]
