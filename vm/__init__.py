"""From a kernel's files to a running guest: boot image, machine, launcher, and what runs inside."""
