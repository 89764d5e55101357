"""What a call would cost, whether it would fail, and how two runs compare."""
