"""Disorder on real processes: crashes, freezes, garbage and hostile peers, and books that must balance afterwards."""
