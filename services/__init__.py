"""The shipped plugins, one folder each; installed as data of `broker.services`, started as processes, never imported."""
