"""Ends with a traceback before it reaches the broker."""

print("about to fail")
raise RuntimeError("the flux capacitor is missing")
