"""A Pants backend that makes deps.pex and source.pex as cached processes, and deploys them by digest."""
