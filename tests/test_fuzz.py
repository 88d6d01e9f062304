"""A slice of the fuzzer: random small, odd and dirty tables keep every rule."""

import pytest
from fuzz import described, run
from fuzzing.invariants import INVARIANTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

N_CASES = 300

# Where single precision or the order of sweeps decides, a case in a hundred may differ
# by more than rounding. Hypothesis takes numbers from the code, too, so cases change
# with it.
ALLOWED = {rule: 3 if rule.startswith("same_up_to") else 0 for rule in INVARIANTS}


@pytest.fixture(scope="module")
def report():
    """What came of a fixed number of cases."""
    return run(N_CASES)


@pytest.mark.parametrize("rule", list(INVARIANTS))
def test_every_rule_holds(rule, report):
    broken = [
        described(kind, finding, seconds=1)
        for kind, finding in report.findings.items()
        if finding.rule == rule
    ]
    assert report.verdicts[rule, "broken"] <= ALLOWED[rule], "\n".join(broken)


def test_every_rule_is_put_to_the_test(report):
    tested = {rule for rule, found in report.verdicts if found in ("held", "broken")}
    assert len(set(INVARIANTS) - tested) <= 2
