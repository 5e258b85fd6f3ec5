"""The shipped plugins, a folder each: data of the wheel (`broker.services`), run as processes."""
