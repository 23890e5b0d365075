"""What is asked of the kernel by netlink: rtnetlink, xfrm, audit, sock_diag, conntrack."""
