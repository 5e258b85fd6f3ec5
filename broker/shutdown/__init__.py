"""Ordered shutdown: phases one after the other, each within its part of one time, and a guard that outlives them."""
