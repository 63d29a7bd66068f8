"""A bundle becomes an app: the Android package, signed and checked, from pinned parts and Debian's tools."""
