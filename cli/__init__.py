"""One module per command of ./kdrift, and what makes a session out of the options."""
