"""From a kernel's files to a guest that runs: boot image, machine, launcher, and what runs inside."""
