"""How sensitive the suite is: the running kernel is broken in one place at a time, and the tests must notice."""
