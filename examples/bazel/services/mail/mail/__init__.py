"""Mail: what customers are told."""
