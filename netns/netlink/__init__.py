"""Netlink requests: rtnetlink, xfrm, audit, sock_diag, conntrack."""
