"""A slice of the fuzzer: random small, odd and dirty tables keep every rule."""

import pytest
from fuzz import described, run
from fuzzing.invariants import INVARIANTS


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", [0, 1])
def test_every_rule_is_put_to_the_test_and_holds(seed):
    findings, verdicts = run(150, seed)
    broken = [
        described(kind, finding, seconds=3)
        for kind, finding in findings.items()
        # Where single precision or the order of sweeps decides, a case in a hundred may
        # differ by more than rounding. Hypothesis takes numbers from the code, too, so
        # cases change with it.
        if not finding.rule.startswith("same_up_to")
        or verdicts[finding.rule, "broken"] > 2
    ]
    assert not broken, "\n".join(broken)
    tested = {rule for rule, found in verdicts if found in ("held", "broken")}
    assert len(set(INVARIANTS) - tested) <= 4
