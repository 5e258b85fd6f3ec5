"""`tools/scale`: whether plugmesh keeps its bounds with many plugins, many peers and many packages."""
