"""Used by every room and importing none: the project's path, errors, exit statuses."""
