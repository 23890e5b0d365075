"""The commands of ./kdrift, and what makes a session out of their options."""
