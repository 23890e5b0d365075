"""What every room uses and that knows of none: where the project is, errors, exit statuses."""
