"""How sensitive the suite is: break the running kernel in one place at a time; the tests must notice."""
