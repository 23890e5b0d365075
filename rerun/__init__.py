"""Tests run again, each in its own machine, restored to the point where pytest has collected them."""
