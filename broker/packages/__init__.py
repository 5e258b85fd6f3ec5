"""Plugin packages: files that are built, signed, encrypted, checked, unpacked and watched (PKG-1 to PKG-5, PLG-7)."""
