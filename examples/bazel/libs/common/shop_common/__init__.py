"""What every service has."""
