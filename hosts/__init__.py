"""The session on other machines: hosts over ssh, builders, Vagrant machines."""
