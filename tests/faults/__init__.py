import pytest

# So that a trial which fails says what differs.
pytest.register_assert_rewrite("tests.faults.bystander", "tests.faults.trial")
