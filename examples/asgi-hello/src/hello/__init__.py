"""The smallest web service that is worth deploying."""
