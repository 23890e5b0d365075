"""Tests run again, each in a machine of its own that is restored to where pytest has collected them."""
