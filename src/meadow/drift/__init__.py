"""Whether a service is shown other photos than its model has learned from."""
