"""The pytest plugin of the conformance kit: one fixture."""

import pytest


@pytest.fixture(scope="session")
def kmbench_conformance():
    """A function ``(strategy, check)`` that fails the test with what the check found.

    A strategy is observed once, when it is first asked about.
    """
    from kmbench.testing import kit

    known: dict[str, dict] = {}

    def conforms(strategy: str, check: str) -> None:
        if strategy not in known:
            findings = kit.check_strategies([strategy])
            known[strategy] = {finding.check: finding for finding in findings}
        finding = known[strategy][check]
        if not finding.ok:
            pytest.fail(f"{check}: {finding.message}", pytrace=False)

    return conforms
