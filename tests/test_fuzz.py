"""A slice of the fuzzer: random small, odd and dirty tables keep every rule."""

import pytest
from fuzz import described, run
from fuzzing.invariants import INVARIANTS

pytestmark = pytest.mark.usefixtures("one_thread")

N_CASES = 400


@pytest.fixture(scope="module")
def report():
    """What came of a fixed number of cases, always the same."""
    return run(N_CASES)


@pytest.mark.parametrize("rule", list(INVARIANTS))
def test_every_rule_holds(rule, report):
    broken = [
        described(kind, finding, seconds=1)
        for kind, finding in report.findings.items()
        if finding.rule == rule
    ]
    assert not broken, "\n".join(broken)


def test_every_rule_is_put_to_the_test(report):
    held = {rule for rule, found in report.fared if found in ("held", "broken")}
    assert held == set(INVARIANTS)
