"""Upgrades under traffic: good versions and bad ones, one after the other, and what callers and events notice of it."""
