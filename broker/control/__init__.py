"""The services `$broker.*`: what the command line and later the gateway ask of a running broker (OPS-5)."""
